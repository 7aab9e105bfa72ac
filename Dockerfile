# syntax=docker/dockerfile:1
# Two images from one file:
#   docker build --target cpu  -t liveface .        serving with OpenVINO, no torch
#   docker build --target cuda -t liveface:cuda .   torch and TensorRT on an NVIDIA GPU

FROM python:3.12-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY engine engine
COPY models models
COPY clients clients
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.12-slim AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends espeak-ng flite libportaudio2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home liveface \
    && install -d -o liveface /var/cache/liveface /avatars
ENV PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/var/cache LIVEFACE_AVATARS_DIR=/avatars LIVEFACE_HOST=0.0.0.0
EXPOSE 8800/tcp 8801/tcp
VOLUME ["/avatars", "/var/cache/liveface"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8800/readyz', timeout=2)"]

FROM base AS cpu
COPY constraints.txt /tmp/
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt /tmp/wheels/*.whl && rm -r /tmp/wheels
USER liveface
# Exec form, so that SIGTERM reaches the server and it drains.
ENTRYPOINT ["liveface"]
CMD ["serve"]

FROM base AS cuda
# The wheels of torch and TensorRT bring CUDA's libraries; NVENC's are mounted only where `video` is asked for.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
COPY constraints.txt /tmp/
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /tmp/wheels/*.whl)[tensorrt]" \
    && rm -r /tmp/wheels
USER liveface
ENTRYPOINT ["liveface"]
CMD ["serve", "--backend", "auto"]
