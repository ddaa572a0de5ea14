"""The Video-VAE on real video too: goes on from the bundled one, on a film beside Playroom, then with a critic.

Needs      the bundled model as --base; Playroom clips and shots of a film (docs/training.md) as --data, shares 3 and 2
Source     LTX-Video, section 2.1; weights of the terms are ours
Result     not run yet
Command    openltx train vae film --base FILE --data work/clips work/film --share 3 2 --out work/vae-film
"""

from openltx.data.datasets import Draw, Stage
from openltx.models.critic import CriticConfig
from openltx.recipes.vae import VAERecipe
from openltx.training.adversarial import AdversarialConfig
from openltx.training.config import OptimConfig
from openltx.training.vae import VAELossConfig

STEPS = 6_000
CRITIC_FROM = 4_500

VAE_RUN = VAERecipe(
    start="base",
    stages=(
        Stage(
            until=10**9,
            draws=(
                Draw(clips=8, frames=1, per_clip=3, share=0.1),
                Draw(clips=6, frames=9, share=0.3),
                Draw(clips=4, frames=17, share=0.4),
                Draw(clips=3, frames=25, share=0.2),
            ),
        ),
    ),
    losses=VAELossConfig(freeze_statistics_from=CRITIC_FROM, lpips=0.1),
    optim=OptimConfig(
        kind="muon", lr=3e-4, muon_lr=0.01, betas=(0.9, 0.98), schedule="trapezoid", warmup=50, cooldown=0.5
    ),
    adversarial=AdversarialConfig(critic=CriticConfig(), critic_from=CRITIC_FROM, weight_from=CRITIC_FROM + 200),
    critic_optim=OptimConfig(lr=2e-4, betas=(0.5, 0.98), warmup=50),
    steps=STEPS,
    ema_decay=0.999,
    sample_every=500,
)
