"""``openltx eval``: what a model is worth, in numbers and pictures. Each command is imported only when it runs."""

from cyclopts import App

COMMANDS = {
    "suite": ("suite:suite_command", "Measure videos: adherence, flicker, consistency, motion, distances, speed."),
    "compare": ("suite:compare_command", "Measure two models on the same prompts and seeds."),
    "survey": ("survey:survey_app", "Let people compare models' videos, blind, and evaluate their answers."),
    "vae": ("vae:vae_command", "Reconstruct clips with the VAE, and measure what is lost."),
    "latents": ("latents:latents_command", "See how evenly VAEs use their latent channels."),
    "playroom": ("playroom:playroom_command", "Generate from held-out captions, and judge what is seen."),
    "specs": ("specs:specs_command", "Compute the paper's Table 1: what LTX-Video and other models are made of."),
    "train-probe": ("probe:train_probe_command", "Train the probe that finds solids and names their shapes."),
}

eval_app = App(name="eval", help="Measure the VAE, its latents and the generated videos; ask people about them.")
for _rank, (_name, (_target, _help)) in enumerate(COMMANDS.items()):
    eval_app.command(f"openltx.cli.eval.{_target}", name=_name, help=_help, sort_key=_rank)
