# fiber for NVIDIA GPUs; docs/install.md says how it is used. torch's wheel brings CUDA's libraries, the host its driver
# and the NVIDIA Container Toolkit.
FROM python:3.11-slim-bookworm

# A C++ compiler for the small operator that DeepSpeed builds on first use; Java for METEOR and SPICE.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ default-jre-headless \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/fiber
COPY pyproject.toml README.md LICENSE ./
COPY fiber_cli fiber_cli
COPY recipes recipes
RUN pip install --no-cache-dir '.[video]'

# Recipes name paths below data.root, runs are written below the current folder: mount both.
WORKDIR /workspace
ENTRYPOINT ["fiber"]
