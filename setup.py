"""Which packages the distribution holds; everything else is in pyproject.toml.

Three import packages lie in three roots, and the configurations of ``configs/`` ship inside ``selfflow_mm``:
pyproject.toml alone can state neither without a list that every new sub-package would have to be added to.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(".", include=["selfflow_mm", "selfflow_mm.*"]),
        *find_packages("tokenizers", include=["selfflow_tokenizers", "selfflow_tokenizers.*"]),
        *find_packages("robotics", include=["selfflow_robotics", "selfflow_robotics.*"]),
        "selfflow_mm.configs",
    ],
    package_dir={
        "selfflow_mm": "selfflow_mm",
        "selfflow_mm.configs": "configs",
        "selfflow_tokenizers": "tokenizers/selfflow_tokenizers",
        "selfflow_robotics": "robotics/selfflow_robotics",
    },
    package_data={
        "selfflow_mm": [f"weights/**/*.{ending}" for ending in ("safetensors", "json", "yaml", "md", "txt")],
        "selfflow_mm.configs": ["**/*.yaml"],
        "selfflow_robotics": ["layouts/*.yaml", "simpler/assets.txt"],
    },
    include_package_data=False,
)
