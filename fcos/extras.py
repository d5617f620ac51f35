"""Which extra of the package installs a module that is missing."""

from fcos.errors import UserError

PACKAGE = "fcos-study"
# The modules of each extra in pyproject.toml; those of DVC's stages are started as programs.
MODULES = {
    "report": ("dvc", "filelock", "fsspec", "mlflow", "pandas", "psutil", "safetensors", "vl_convert"),
    "study": ("torch", "torchvision"),
    "export": ("onnx", "onnxruntime"),
    "ray": ("ray",),
    "s3": ("dvc_s3", "s3fs"),
}  # fmt: skip


def missing(error: ModuleNotFoundError, command: str) -> UserError | None:
    """Return the error as a message that says what to install, or None if the module is in no extra."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in MODULES.items():
        if module in modules:
            lighter = ", or `report` for a study of results, which trains nothing" if extra == "report" else ""
            whole = "study" if lighter else extra
            return UserError(
                command,
                f"needs {module}, which is not installed",
                expected=f"the extra `{whole}` of {PACKAGE}{lighter}",
                hint=f"pip install '{PACKAGE}[{whole}]', or `make install` in a clone",
            )
    return None
