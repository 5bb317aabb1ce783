# The programs, with the versions of requirements.lock:
#
#     docker build --tag triplet_jax .
#     docker run --rm --user "$(id -u)" --volume "$PWD/runs:/runs" triplet_jax \
#         experiments.train --config=configs/digits.py:semi_hard --workdir=/runs/digits
#
# For a GPU, add --build-arg JAX=cuda13 (or cuda12) to the first and --gpus all to the second.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

WORKDIR /opt/triplet_jax

# First what changes seldom: a build after a change of the code begins below it.
COPY requirements.lock .
RUN pip install --no-cache-dir --requirement requirements.lock
# The extra of jax for an accelerator; none for a CPU.
ARG JAX=""
RUN test -z "$JAX" || pip install --no-cache-dir --constraint requirements.lock "jax[$JAX]"

COPY . .
RUN pip install --no-cache-dir --no-deps --editable .

# Where any user may write, as clusters choose who it is.
ENV GLIBC_TUNABLES=glibc.malloc.hugetlb=1 HOME=/tmp
USER 65534
ENTRYPOINT ["python", "-m"]
CMD ["experiments.train", "--help"]
