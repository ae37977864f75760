"""Model folders to the Hugging Face hub."""

import re
import textwrap
from pathlib import Path

from janus_jax.errors import UserError

ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def api(repository: str):
    """huggingface_hub's HfApi, for a repository OWNER/NAME. Raises UserError, before any work, where there is no
    huggingface_hub, no token, or no such id."""
    if not ID.fullmatch(repository):
        raise UserError(f"--push {repository} is no id of a repository: give OWNER/NAME")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("--push needs huggingface_hub: pip install huggingface_hub") from error
    if not huggingface_hub.get_token():
        raise UserError("--push needs a token of the hub: run `hf auth login`, or set HF_TOKEN")
    return huggingface_hub.HfApi()


def push(api, folder: Path, repository: str, card: str, private: bool = False) -> str:
    """Uploads a model folder and its card, README.md, into a repository, which is made where it is not there. Returns
    its address. Raises UserError where the hub refuses; the folder stays."""
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(folder_path=str(folder), repo_id=repository, commit_message="The model")
        api.upload_file(
            path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repository, commit_message="Its card"
        )
    except Exception as error:  # of the hub, of HTTP or of the network: many kinds, and all of them mean this
        said = textwrap.shorten(str(error), 160, placeholder="...")
        raise UserError(
            f"the hub does not take {repository} ({said}): {folder} is complete; give the same command again"
        ) from error
    return str(address)
