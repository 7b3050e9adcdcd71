# docker build -t avbench .
# docker run --rm -v "$PWD:/work" -v avbench-cache:/cache avbench run --model streamsync-trf
# docker run --rm --gpus all -v "$PWD:/work" avbench run --model sparsesync --device cuda ...
FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /wheels .

FROM python:3.12-slim
# for example an index that has torch without CUDA, which is ten times smaller
ARG PIP_ARGS=""
COPY constraints.txt /tmp/constraints.txt
# hadolint ignore=DL3042,SC2086
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir -c /tmp/constraints.txt ${PIP_ARGS} "$(echo /wheels/avbench-*.whl)[live,annotate]"
# not root: media of strangers are decoded here
RUN useradd --uid 1000 --create-home avbench && mkdir /work /cache && chown avbench /work /cache
USER 1000
WORKDIR /work
ENV AVBENCH_CACHE=/cache
ENTRYPOINT ["avbench"]
CMD ["--help"]
