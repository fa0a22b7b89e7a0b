# Two images from one file:
#   gateway       ONNX, scikit-learn and Python models
#   gateway-jvm   the same with a Java runtime, the JVM worker and Spark's jars
# Both run as uid 10001, need no writable root, and keep their state in /var/lib/turnout.
# PYTHON_IMAGE needs a `python3` of 3.11 or newer with venv; JDK_IMAGE a JDK 17 or newer with jlink on its path.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim
ARG JDK_IMAGE=docker.io/library/eclipse-temurin:17-jdk

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/build.txt requirements/serve.txt requirements/
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --quiet --require-hashes -r requirements/build.txt \
    && python3 -m venv /opt/turnout && /opt/turnout/bin/pip install --quiet --require-hashes -r requirements/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY proto proto
COPY turnout turnout
COPY adapters adapters
COPY gateway gateway
RUN /opt/build/bin/hatchling build --target wheel --directory /wheels \
    && /opt/turnout/bin/pip install --quiet --no-deps --no-index /wheels/*.whl \
    && /opt/turnout/bin/python3 -m compileall -q /opt/turnout/lib \
    && /opt/turnout/bin/pip uninstall --quiet --yes pip setuptools

FROM build AS spark
COPY requirements/spark.txt requirements/
RUN /opt/build/bin/pip install --quiet --require-hashes --no-build-isolation -r requirements/spark.txt \
    && mkdir /opt/spark && mv /opt/build/lib/python3*/site-packages/pyspark/jars /opt/spark/jars

FROM ${JDK_IMAGE} AS java
# The runtime goes into the image; the compiler only builds the worker. jdk.incubator.vector: Spark asks for it.
RUN set -e; of=java.se,jdk.charsets,jdk.crypto.ec,jdk.incubator.vector,jdk.management,jdk.security.auth,jdk.unsupported,jdk.zipfs; \
    jlink --output /opt/java --no-header-files --no-man-pages --strip-java-debug-attributes --add-modules $of; \
    jlink --output /opt/jdk --add-modules $of,jdk.compiler

FROM build AS worker
COPY --from=java /opt/jdk /opt/jdk
COPY --from=spark /opt/spark /opt/spark
RUN JAVA_HOME=/opt/jdk SPARK_HOME=/opt/spark /opt/turnout/bin/python3 -m adapters.jvm.build /opt/turnout-jvm

FROM ${PYTHON_IMAGE} AS gateway
RUN mkdir -p /var/lib/turnout /models && chown 10001:10001 /var/lib/turnout
COPY --from=build /opt/turnout /opt/turnout
ENV PATH=/opt/turnout/bin:$PATH PYTHONUNBUFFERED=1 HOME=/var/lib/turnout
USER 10001:10001
WORKDIR /var/lib/turnout
VOLUME /var/lib/turnout
EXPOSE 8080 8081 8082
ENTRYPOINT ["turnout"]
CMD ["serve", "/models", "--state", "/var/lib/turnout", "--host", "0.0.0.0"]

FROM gateway AS gateway-jvm
COPY --from=java /opt/java /opt/java
COPY --from=spark /opt/spark /opt/spark
COPY --from=worker /opt/turnout-jvm /opt/turnout-jvm
ENV JAVA_HOME=/opt/java SPARK_HOME=/opt/spark TURNOUT_JVM_CLASSES=/opt/turnout-jvm
