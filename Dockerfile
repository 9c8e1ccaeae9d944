# An image for GPU nodes. Ubuntu 24.04's own Python is 3.12.
#
# NVIDIA's `base` flavour and no more: PyTorch's wheels bring the CUDA and cuDNN libraries that they were built with, and a
# second set would only add gigabytes. What `base` gives over a plain image is the variables by which the NVIDIA container
# toolkit hands the driver in. Without a GPU the image works as well, on the CPU.
#
#   docker build -t iarn:0.1.0 .
#   docker run --rm --gpus all --shm-size 1g -v "$PWD:/data" iarn:0.1.0 rescale photos small --scale 4
#
# On Kubernetes KubeRay runs `ray` in it in place of `iarn` (deploy/); its probes of a node's health use wget.
# CUDA 13 needs NVIDIA's driver 580 or later on the host.
#
# Credentials for S3 are given when it is run (-e AWS_ACCESS_KEY_ID …, or a mounted ~/.aws), never built in.
FROM nvidia/cuda:13.0.3-base-ubuntu24.04

LABEL org.opencontainers.image.title="iarn" \
      org.opencontainers.image.description="Turns image archives into small, usable pictures plus a latent, and restores them" \
      org.opencontainers.image.licenses="Apache-2.0 AND BSD-3-Clause"

ENV PYTHONUNBUFFERED=1 \
    PATH=/opt/iarn/bin:$PATH

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv wget \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/iarn

COPY . /src
# KubeRay may start a login shell, whose profile sets another PATH; /usr/local/bin is on every one.
RUN pip install --no-cache-dir "/src[heif,raw]" && rm -rf /src && ln -s /opt/iarn/bin/iarn /opt/iarn/bin/ray /usr/local/bin/

# The base image's own user: id 1000, as most people's on their machines, with a home that Ray and boto3 may write to.
RUN install --directory --owner ubuntu --group ubuntu /data
USER ubuntu
WORKDIR /data
ENTRYPOINT ["iarn"]
CMD ["--help"]
