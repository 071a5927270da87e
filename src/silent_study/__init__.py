"""The reproduction."""

import os

for _variable in ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"):
    # Read when torch is loaded: CPUs would compute float32 in bfloat16. Containers for ARM processors set it.
    os.environ.pop(_variable, None)
