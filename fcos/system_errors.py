"""System errors that any command may encounter: disk, permissions, memory."""

import errno

from fcos.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain(error: BaseException) -> UserError | None:
    """Return the system error as a UserError with a hint, or None if the error is a bug of fcos."""
    text = str(error)
    # The class is compared by name, so that torch is not imported here.
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return UserError(
            "memory",
            "out of memory: the batch does not fit",
            found=text.partition("\n")[0] or None,
            hint="reduce train.batch_size or test.batch_size (`fcos doctor` shows what fits), or close other programs",
        )
    if isinstance(error, MemoryError):
        return UserError(
            "memory", "out of memory", found=text or None, hint="close other programs or reduce the batch size"
        )
    number = error.errno if isinstance(error, OSError) else None
    where = getattr(error, "filename", None) or "a file that was to be written"
    # The texts are those of safetensors and torch, which write files with their own code and raise no OSError.
    if number in _FULL or "No space left on device" in text or "os error 28" in text:
        return UserError(where, "no space left on its disk", hint="free some space and run the command again")
    if number in _REFUSED:
        hint = "change its permissions or its owner, or work in another folder"
        return UserError(where, "cannot be read or written: no permission", found=_strerror(error), hint=hint)
    if number in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
        hint = "keep the project, or runs/, on a local disk; see docs/how-to/resume.md"
        return UserError(where, "its file system has no locks", found=_strerror(error), hint=hint)
    if number in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP):
        hint = "correct the path, or move the existing file"
        return UserError(where, "cannot be opened or created", found=_strerror(error), hint=hint)
    return None


def _strerror(error: BaseException) -> str | None:
    return getattr(error, "strerror", None)
