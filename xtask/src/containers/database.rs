//! A database in one container, its client in another, by name over a network of theirs; what was
//! written outlives both.

use super::place::Place;
use crate::command::Cmd;
use crate::failure::{Outcome, ensure, fail};

/// As the official image does it, in short.
const DOCKERFILE: &str = r#"FROM python:3.7.4
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql \
 && rm -rf /var/lib/apt/lists/* && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/
ENV PGDATA=/var/lib/postgresql/data
RUN mkdir -p $PGDATA && chown postgres:postgres $PGDATA && chmod 700 $PGDATA
COPY --chmod=755 <<'EOT' /usr/local/bin/serve
#!/bin/sh -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --auth=trust >/dev/null
  echo 'host all all all trust' >> "$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp
EOT
VOLUME /var/lib/postgresql/data
USER postgres
EXPOSE 5432
STOPSIGNAL SIGINT
HEALTHCHECK --interval=200ms --retries=100 CMD pg_isready -h 127.0.0.1
CMD ["serve"]
"#;

pub(super) fn prepare(place: &Place) -> Outcome {
    place.load_python()?;
    let context = place.dir.join("postgres");
    fs_err::create_dir_all(&context)?;
    fs_err::write(context.join("Dockerfile"), DOCKERFILE)?;
    println!("==> an image with Debian's PostgreSQL (downloads it)");
    let build = place.cmd("build").words("-q -t postgres").args(crate::acceptance::proxies());
    build.arg(context).output().map(drop)
}

pub(super) fn hold(place: &Place) -> Outcome {
    place.cmd("network").words("create shop").output()?;
    serve(place)?;
    let answer = ask(place, "CREATE TABLE t (n int); INSERT INTO t VALUES (6), (7)")?;
    ensure(answer.contains("INSERT 0 2"), || format!("the database answered {answer:?}"))?;
    let stopped = std::time::Instant::now();
    place.cmd("stop").arg("db").output()?;
    place.logs("db", "database system is shut down")?;
    println!("    stopped by STOPSIGNAL after {} ms", stopped.elapsed().as_millis());
    place.cmd("rm").arg("db").output()?;
    place.nothing_is_left()?;
    serve(place)?;
    let answer = ask(place, "SELECT sum(n) FROM t")?;
    ensure(answer.contains("13"), || format!("the second database answered {answer:?}"))?;
    println!("    what the first container wrote was read by the second");
    place.remove_all()?;
    place.cmd("volume").words("rm pgdata").output()?;
    place.cmd("network").words("rm shop").output().map(drop)
}

/// Starts the server, and waits until it is healthy.
fn serve(place: &Place) -> Outcome {
    let run = place.run("db").words("--network shop -v pgdata:/var/lib/postgresql/data postgres");
    run.output()?;
    let inspect = place.cmd("inspect").args(["--format", "{{.State.Health.Status}}", "db"]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let health = inspect.output()?;
        if health.trim() == "healthy" {
            return Ok(());
        }
        if health.trim() == "unhealthy" || std::time::Instant::now() > until {
            let logs = place.cmd("logs").arg("db").capture()?;
            let logs = String::from_utf8_lossy(&logs.stderr).into_owned();
            return fail(format!("the database is {}\n{logs}", health.trim()));
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Asks the server by its name, from a container of its own.
fn ask(place: &Place, sql: &str) -> Outcome<String> {
    let client: Cmd = place.cmd("run").words("--rm --network shop postgres");
    client.words("psql -h db -d postgres -c").arg(sql).output()
}
