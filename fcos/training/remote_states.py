"""The state of a training in an object store, or any store that fsspec supports, for nodes that share no folder."""

from pathlib import Path


class RemoteStates:
    """A folder at a URL, with one file per name; an incomplete upload is ignored."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        self._files, self._folder = fsspec.core.url_to_fs(url)

    def put(self, path: Path) -> None:
        """Upload a file under its name.

        Raises:
            OSError: the store cannot be written.
        """
        try:
            self._files.makedirs(self._folder, exist_ok=True)
            self._files.put_file(str(path), self._at(path.name))
        except Exception as error:  # each store raises its own types
            raise OSError(f"{self.url}: {str(error) or repr(error)}") from error

    def get(self, path: Path) -> bool:
        """Download the file of this name to `path`; return False if there is none.

        Raises:
            OSError: the store cannot be read.
        """
        try:
            self._files.invalidate_cache()  # other nodes write too
            if not self._files.exists(self._at(path.name)):
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(self._at(path.name), str(path))
            return True
        except Exception as error:
            raise OSError(f"{self.url}: {str(error) or repr(error)}") from error

    def drop(self) -> None:
        """Delete the folder and everything in it."""
        if self._files.exists(self._folder):
            self._files.rm(self._folder, recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._folder}/{name}"
