"""``openltx train``: the steps from clips to a model file, and experiments. Each resumes where it was stopped."""

from cyclopts import App

from openltx.cli.train.ablation import ablation
from openltx.cli.train.distill import distill
from openltx.cli.train.export import export
from openltx.cli.train.flow import flow
from openltx.cli.train.flow_ablation import flow_ablation
from openltx.cli.train.tuning import full, lora
from openltx.cli.train.vae import vae

train_app = App(name="train", help="Train the Video-VAE or the transformer.")
for _command in (vae, flow, lora, full, distill, export, ablation, flow_ablation):
    train_app.command(_command)
