# Answers questions about a scan in a mounted folder, without anything installed but Docker:
#
#   docker build --tag medvol .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" medvol segment /data/ct.nii.gz "the spleen"
#
# For a graphics card (NVIDIA's container toolkit on the host); the wheels of PyTorch on PyPI bring CUDA:
#
#   docker build --build-arg TORCH_INDEX=https://pypi.org/simple --tag medvol:cuda .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/data" medvol:cuda segment /data/ct.nii.gz "the spleen"
#
# Not built where medvol is developed, which has no Docker; the workflow `test` builds the first one.
FROM python:3.12-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Extras of pyproject.toml that the image can use.
ARG EXTRAS=dicom,endpoint,litemedsam,qwen
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/medvol
ENV PATH=/opt/medvol/bin:$PATH
RUN pip install --index-url "${TORCH_INDEX}" "torch>=2.10,<3" "torchvision>=0.25,<1"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY medvol ./medvol
RUN pip install ".[${EXTRAS}]"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/medvol /opt/medvol
RUN useradd --create-home --uid 1000 medvol
# Any user of the host may run it (`--user`), so what libraries write for themselves goes to a place that all may write to.
ENV PATH=/opt/medvol/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1
USER medvol
WORKDIR /data
ENTRYPOINT ["medvol"]
CMD ["--help"]
