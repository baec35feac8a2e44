//! Instructions that change the configuration only.

use super::*;

#[test]
fn the_configuration_is_what_the_instructions_say() {
    let mut bench = Bench::new();
    let image = bench.build(
        r#"
ARG VERSION=1.0
FROM base AS one
ARG VERSION
ENV A=1 B="two words" C=$A-${VERSION}
ENV OLD style value
LABEL team=web "note"='$A stays'
EXPOSE 80 8000-8001/udp
VOLUME /data /logs
USER web
WORKDIR /srv
WORKDIR app
STOPSIGNAL SIGINT
SHELL ["/bin/ash", "-e", "-c"]
HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost \
  # why
  || exit 1
ENTRYPOINT ["/bin/app", "--flag"]
CMD run this
"#,
    );
    let config = bench.config();
    let expected = serde_json::json!({
        "Env": ["A=1", "B=two words", "C=-1.0", "OLD=style value"],
        "Labels": {"team": "web", "note": "$A stays"},
        "ExposedPorts": {"80/tcp": {}, "8000/udp": {}, "8001/udp": {}},
        "Volumes": {"/data": {}, "/logs": {}},
        "User": "web", "WorkingDir": "/srv/app", "StopSignal": "SIGINT",
        "Shell": ["/bin/ash", "-e", "-c"],
        "Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost   || exit 1"],
                        "Interval": 90_000_000_000u64, "Retries": 3},
        "Entrypoint": ["/bin/app", "--flag"],
        "Cmd": ["/bin/ash", "-e", "-c", "run this"],
    });
    // Variables of one instruction do not see each other.
    assert_eq!(config, expected);
    // WORKDIR made the folder.
    assert!(metadata(&image, "srv/app").is_dir());
    let history = bench.store.history("built").unwrap();
    assert_eq!(history[0].created_by.as_deref(), Some("CMD run this"));
    assert_eq!(history[0].created.as_deref(), Some("1970-01-01T00:00:00Z"));
}

#[test]
fn an_entrypoint_takes_the_base_images_command_away() {
    let mut bench = Bench::new();
    bench.build("FROM base\nENTRYPOINT [\"x\"]");
    assert!(bench.config().get("Cmd").is_none());
    bench.build("FROM base\nCMD [\"y\"]\nENTRYPOINT [\"x\"]");
    assert_eq!(bench.config()["Cmd"][0], "y");
}

#[test]
fn an_empty_command_takes_the_base_s_away() {
    let mut bench = Bench::new();
    for (text, key) in [
        ("ENTRYPOINT [\"x\"]\nENTRYPOINT []", "Entrypoint"),
        ("ENTRYPOINT [\"x\"]\nENTRYPOINT [ ]", "Entrypoint"),
        ("CMD [\"x\"]\nCMD []", "Cmd"),
        ("CMD x\nCMD", "Cmd"),
    ] {
        bench.build(&format!("FROM base\n{text}\n"));
        assert!(bench.config().get(key).is_none(), "{text}: {}", bench.config());
    }
}

#[test]
fn health_checks_are_what_docker_reads() {
    let mut bench = Bench::new();
    bench.build(
        "FROM base\nHEALTHCHECK --interval=1.5s --timeout=1h30m --start-period=500ms \\\n\
         # why\n\n  --start-interval=2s --retries=2 CMD [\"curl\", \"x\"]\n",
    );
    let expected = serde_json::json!({
        "Test": ["CMD", "curl", "x"], "Interval": 1_500_000_000u64, "Timeout": 5_400_000_000_000u64,
        "StartPeriod": 500_000_000, "StartInterval": 2_000_000_000, "Retries": 2,
    });
    assert_eq!(bench.config()["Healthcheck"], expected);
    bench.build("FROM base\nHEALTHCHECK NONE\n");
    assert_eq!(bench.config()["Healthcheck"]["Test"], serde_json::json!(["NONE"]));
}

/// What public Dockerfiles are made of.
#[test]
fn usual_dockerfiles_build() {
    let mut bench = Bench::new();
    for file in ["go.mod", "main.go", "package.json", "Cargo.toml", "src/main.rs", "app.jar"] {
        bench.write(file, file);
    }
    bench.write("requirements.txt", "flask").write("docker-entrypoint.sh", "#!/bin/sh\n");
    for dockerfile in [
        // Go
        "# syntax=docker/dockerfile:1.7\nARG GO=1.22\nFROM --platform=$BUILDPLATFORM base AS build\n\
         ARG TARGETOS TARGETARCH\nWORKDIR /src\n\
         RUN --mount=type=bind,source=go.mod,target=go.mod \\\n  \
         --mount=type=cache,target=/go/pkg/mod go mod download -x\n\
         COPY . .\nRUN --mount=type=cache,target=/go/pkg/mod/ \\\n    \
         CGO_ENABLED=0 GOARCH=$TARGETARCH go build -o /bin/server .\n\
         FROM scratch AS final\nCOPY --from=build /etc/passwd /bin/\nEXPOSE 8080\n\
         ENTRYPOINT [ \"/bin/server\" ]\n",
        // Node
        "FROM base AS deps\nWORKDIR /usr/src/app\nENV NODE_ENV production\nCOPY package*.json ./\n\
         RUN npm ci --omit=dev && \\\n    npm cache clean --force\nFROM base\n\
         COPY --from=deps --chown=web:web /usr/src/app ./\nUSER web\n\
         CMD [\"node\", \"index.js\"]\n",
        // Python
        "ARG PYTHON_VERSION=3.12\nFROM base as b\nENV PYTHONDONTWRITEBYTECODE=1 \\\n    \
         # unbuffered\n    PYTHONUNBUFFERED=1\n\nARG UID=10001\nRUN adduser \\\n    \
         --disabled-password \\\n    --uid \"${UID}\" \\\n    appuser\n\
         RUN --mount=type=cache,target=/root/.cache/pip \\\n    \
         --mount=type=bind,source=requirements.txt,target=requirements.txt \\\n    \
         python -m pip install -r requirements.txt\nUSER web\nCOPY . .\nEXPOSE 8000\n\
         CMD gunicorn 'app:app' --bind=0.0.0.0:8000\n",
        // Rust
        "FROM base AS chef\nFROM chef AS planner\nCOPY Cargo.toml src ./\nFROM chef AS builder\n\
         COPY --from=planner /Cargo.toml recipe\nCOPY --link . .\n\
         RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \\\n    \
         --mount=type=cache,id=target,target=/app/target <<EOF\nset -e\ncargo build --release\nEOF\n\
         FROM base\nCOPY --from=2 /recipe /usr/local/bin/\n",
        // Java
        "FROM base\nARG JAR_FILE=*.jar\nCOPY ${JAR_FILE} app.jar\nVOLUME [\"/tmp\"]\n\
         ENTRYPOINT [\"sh\", \"-c\", \"java ${JAVA_OPTS} -jar /app.jar\"]\n",
        // Debian's packages
        "FROM base\nSHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\n\
         RUN <<-'EOT' bash -ex\n\tapt-get update\n\tapt-get install -y curl\n\tEOT\n\
         RUN set -eux; \\\n\t\\\n\tsavedAptMark=\"$(apt-mark showmanual)\"; \\\n\
         # comment; with \\ in it\n\n\tapt-get clean\n",
        // Labels and the rest
        "FROM base\nLABEL org.opencontainers.image.title=\"An app\" \\\n      \
         org.opencontainers.image.version=1.0 \\\n      'single'='quoted value'\n\
         MAINTAINER Somebody <a@b.c>\nSTOPSIGNAL SIGTERM\nENV PATH=\"/opt/bin:$PATH\" A='x y' B=c\\ d\n\
         COPY --chmod=755 docker-entrypoint.sh /usr/local/bin/\nVOLUME /var/lib/data /logs\n\
         EXPOSE 80/tcp 443 53/UDP\nONBUILD COPY . /app\nONBUILD RUN make\nUSER 1000:1000\n\
         HEALTHCHECK --interval=30s CMD wget -q -O- localhost || exit 1\nWORKDIR $HOME/x\n",
        // Windows' escape
        "# escape=`\nFROM base\nRUN echo a `\n  && echo b\\\nENV A=c:\\d\n",
        // nginx's
        "FROM base\nRUN set -x \\\n# create user\n    && addgroup -S nginx || true \\\n    \
         && case \"$(arch)\" in \\\n        x86_64) \\\n# official\n            echo yes;; \\\n    \
         esac\nCOPY <<EOF /etc/nginx/conf.d/default.conf\nserver { listen 80; root $pwd; }\nEOF\n\
         CMD [\"nginx\", \"-g\", \"daemon off;\"]\n",
    ] {
        bench.build(dockerfile);
    }
}
