"""Write the script of the charts into the wheel, so that `fcos compare --html` needs no vl-convert (87 MB)."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithScript(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            import vl_convert

            text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version="6.1")
            (Path(self.build_lib) / "fcos" / "reporting" / "vega.js").write_text(text, encoding="utf-8")


setup(cmdclass={"build_py": BuildWithScript})
