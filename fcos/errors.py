"""The one exception a user's mistake raises."""


class UserError(Exception):
    """A mistake that the user can mend; the command line prints it and exits with 2.

    Args:
        where: the file, key or argument that is wrong (`params.yaml: train.epochs`).
        problem: what is wrong, in a few words.
        found: what stands there.
        expected: what would have been right.
        do: what to do about it, a command where one helps.
    """

    def __init__(
        self,
        where: object,
        problem: str,
        *,
        found: object = None,
        expected: object = None,
        do: str | None = None,
    ) -> None:
        lines = [f"{where}: {problem}"]
        for name, value in (("found", found), ("expected", expected), ("to do", do)):
            if value is not None:
                lines.append(f"  {name + ':':<10}{value}")
        super().__init__("\n".join(lines))
