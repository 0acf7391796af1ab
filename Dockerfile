# docker build .                      the service: no TensorFlow, no compiler, no pip cache
# docker build --target training .    the same plus what `python -m training` needs
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS base
ENV PATH=/opt/imageclass/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /srv/imageclass

# The environments are built in stages of their own and copied whole: pip's cache and temporary files stay behind. pip
# writes the bytecode, so that a read-only root does not mean compiling at every start.
FROM base AS serving-dependencies
RUN python -m venv /opt/imageclass
COPY requirements/serving.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --disable-pip-version-check --require-hashes -r requirements/serving.txt

FROM serving-dependencies AS training-dependencies
COPY requirements/training.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --disable-pip-version-check --require-hashes -r requirements/training.txt

FROM base AS training
COPY --from=training-dependencies /opt/imageclass /opt/imageclass
COPY docker/train.sh /usr/local/bin/train
COPY app app
COPY training training
RUN python -m compileall -q app training
# The one place that is writable under a read-only root, whoever the user turns out to be.
ENV HOME=/tmp
ENTRYPOINT ["sh", "/usr/local/bin/train"]

FROM base AS service
COPY --from=serving-dependencies /opt/imageclass /opt/imageclass
COPY app app
COPY docker/health.py /usr/local/bin/
RUN python -m compileall -q app
ENV HOME=/tmp \
    IMAGECLASS_HOST=0.0.0.0 \
    IMAGECLASS_PORT=8000 \
    IMAGECLASS_MODEL_STORE=/srv/imageclass/model_store
EXPOSE 8000
# For a volume: Docker gives a new one the owner of the folder that it is mounted over.
RUN install --directory --owner 10001 --group 10001 /var/cache/imageclass
# A number, not a name: Kubernetes' runAsNonRoot can check it.
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "/usr/local/bin/health.py"]
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]
