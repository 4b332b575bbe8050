"""Run the tests on one BLAS thread, as the script does: matrices this small need no more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # has to come before the first import of NumPy
