"""Weight files: reading the official single files and diffusers folders, strictly, and writing the former."""

from openltx.checkpoints.fingerprint import fingerprint
from openltx.checkpoints.load import load_bundle, load_transformer, load_upsampler, load_vae
from openltx.checkpoints.lora import load_lora, save_lora
from openltx.checkpoints.single_file import FileReport, inspect_file, save_single_file
from openltx.checkpoints.upsampler import save_upsampler

__all__ = [
    "FileReport",
    "fingerprint",
    "inspect_file",
    "load_bundle",
    "load_lora",
    "load_transformer",
    "load_upsampler",
    "load_vae",
    "save_lora",
    "save_single_file",
    "save_upsampler",
]
