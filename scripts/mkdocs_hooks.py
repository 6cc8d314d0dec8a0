"""Links of the documentation, which are written for GitHub, made to work in the site; `mkdocs.yml` names this file.

A page links to files of the repository by relative paths. Those that lead out of docs/ become links to the repository, but for
serving/README.md, which is a page of the site as well. A link to a file that is not there fails `mkdocs build --strict`.
"""

import logging
import os
import pathlib
import re
from typing import Any

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
# Name of the page in the site -> the file of the repository that it shows.
PAGES = {"serve.md": "serving/README.md"}
_BRANCH = "main"
_FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^()\s#:]+)((?:#[^()\s]*)?\))")
_logger = logging.getLogger("mkdocs.hooks.links")


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs: add the pages that lie outside docs/."""
    for name, path in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by MkDocs for each page: rewrite its links, but for what is in blocks of code."""
    source = pathlib.PurePosixPath(PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    parts = _FENCE.split(markdown)

    def replace(match: re.Match[str]) -> str:
        return match[1] + rewrite(match[2], source, config.extra["repository"]) + match[3]

    parts[::2] = [_LINK.sub(replace, part) for part in parts[::2]]
    return "".join(parts)


def rewrite(link: str, source: pathlib.PurePosixPath, repository: str) -> str:
    """A relative link in a file of the repository as the site needs it.

    Args:
      link: without its anchor.
      source: the file, relative to the root of the repository.
      repository: where it can be seen, https://...
    """
    target = os.path.normpath(source.parent / link)
    names = {path: name for name, path in PAGES.items()}
    if target == "serving":
        target = "serving/README.md"
    if target in names:
        return names[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    path = ROOT / target
    if target.startswith("..") or not path.exists():
        _logger.warning("%s links to %s, which is not in the repository", source, target)
    return f"{repository}/{'tree' if path.is_dir() else 'blob'}/{_BRANCH}/{target}"
