"""Settings of every test: two CPU devices, strict broadcasting, fast compiles."""

import os
import signal
import sys

# Tests compile hundreds of tiny programs and run each a few times, so LLVM's
# optimizations cost far more than they save. Subprocesses inherit the flags.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import jax

# The Triton that PyTorch brings on some machines and TensorFlow have an LLVM each. Both
# in one process end it with a segmentation fault; no test needs Triton.
sys.modules["triton"] = None

# On a busy machine an example may take long; speed is no property of the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")

# A shell without job control starts background commands with Ctrl-C ignored, and
# children inherit that; tests that send it expect Python's usual answer.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
