//! A real Apache on the server, with a ServerRoot and a configuration of its own.

use std::fs;
use std::net::SocketAddr;

use super::backend::PORT;
use super::process::{self, Pipe, Process};
use super::world::{ROUTER4, SERVER4, World};
use super::{eventually, http};

const CONF: &str = "/var/site/httpd.conf";
/// The error log that pipeban writes.
pub(crate) const ERROR_LOG: &str = "/var/log/apache2/error.log";
/// The access log that pipeban writes.
pub(crate) const ACCESS_LOG: &str = "/var/log/apache2/access.log";
/// Scripts, for an MPM with threads.
pub(crate) const CGID: &str =
    "LoadModule cgid_module /usr/lib/apache2/modules/mod_cgid.so\nScriptSock /run/apache2/cgid\n";
/// pipeban in both pipes of the main server.
pub(crate) const BOTH_PIPES: &str = r#"
ErrorLog "|/usr/bin/pipeban log error /var/log/apache2/error.log"
CustomLog "|/usr/bin/pipeban log access --format combined /var/log/apache2/access.log" combined
"#;

/// Multi-processing module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mpm {
    Event,
    Prefork,
}

/// A running Apache; the world ends it.
pub(crate) struct Apache<'w> {
    world: &'w World,
}

impl<'w> Apache<'w> {
    /// Starts it with pipeban in both pipes and waits until both workers are there.
    #[track_caller]
    pub(crate) fn with_pipeban(world: &'w World, mpm: Mpm) -> Apache<'w> {
        let apache = Apache::start(world, mpm, BOTH_PIPES);
        apache.pipe("access");
        apache.pipe("error");
        world.engine();
        apache
    }

    /// Starts it with these log directives and waits until it answers.
    #[track_caller]
    pub(crate) fn start(world: &'w World, mpm: Mpm, logs: &str) -> Apache<'w> {
        for directory in [
            "/var/site/htdocs",
            "/var/site/htdocs/closed",
            "/var/site/cgi-bin",
        ] {
            fs::create_dir_all(world.path(directory)).expect("made");
        }
        world.write("/var/site/htdocs/index.html", "hello\n");
        world.write(CONF, &configuration(mpm, logs));
        let apache = Apache { world };
        apache.run_again();
        apache
    }

    /// Starts it after a stop.
    #[track_caller]
    pub(crate) fn run_again(&self) {
        self.run_with_umask("022");
    }

    #[track_caller]
    pub(crate) fn run_with_umask(&self, umask: &str) {
        // Apache hands its stdout and stderr on to the loggers: files, so that nobody waits for
        // the end of a pipe.
        let said = fs::File::create(self.world.path("/var/log/apache-start")).expect("made");
        let status = self
            .world
            .command(&[
                "sh",
                "-c",
                &format!("umask {umask}; apache2 -f {CONF} -k start"),
            ])
            .stdin(std::process::Stdio::null())
            .stdout(said.try_clone().expect("cloned"))
            .stderr(said)
            .status()
            .expect("started");
        assert!(
            status.success(),
            "apache2 -k start: {}",
            self.world.read("/var/log/apache-start")
        );
        let clients = self.world.clients();
        eventually("Apache listens", || {
            clients
                .connect(ROUTER4, SocketAddr::new(SERVER4, 80))
                .map_err(|error| format!("{error}: {}", self.world.read("/var/log/apache-start")))
        });
    }

    /// `graceful`, `restart`: waits until every logger is a new one and requests are answered.
    #[track_caller]
    pub(crate) fn reload(&self, how: &str) {
        let before: Vec<u32> = self.loggers().iter().map(|logger| logger.pid).collect();
        self.world.must(&["apache2", "-f", CONF, "-k", how]);
        eventually(&format!("{how}: new loggers"), || {
            let now: Vec<u32> = self.loggers().iter().map(|logger| logger.pid).collect();
            if now.len() >= before.len() && !now.iter().any(|pid| before.contains(pid)) {
                Ok(())
            } else {
                Err(format!("before {before:?}, now {now:?}"))
            }
        });
        let clients = self.world.clients();
        eventually(&format!("{how}: answers"), || {
            http::get(&clients, "203.0.113.2", SERVER4, "/after-reload")
                .map_err(|error| error.to_string())
        });
    }

    /// `stop`, `graceful-stop`: waits for the end of the main process.
    #[track_caller]
    pub(crate) fn stop(&self, how: &str) {
        let main = self.main();
        self.world.must(&["apache2", "-f", CONF, "-k", how]);
        eventually("Apache's main process ends", || {
            if main.is_alive() {
                Err("alive".to_owned())
            } else {
                Ok(())
            }
        });
    }

    /// The main process.
    #[track_caller]
    pub(crate) fn main(&self) -> Process {
        process::apache(&self.world.processes()).expect("Apache runs")
    }

    pub(crate) fn loggers(&self) -> Vec<Process> {
        process::loggers(&self.world.processes())
    }

    /// Stub, keeper and worker of a pipe, as soon as all are there.
    #[track_caller]
    pub(crate) fn pipe(&self, kind: &str) -> Pipe {
        eventually(
            &format!("stub, keeper and worker of `pipeban log {kind}`"),
            || {
                let all = self.world.processes();
                process::pipe(&all, kind).ok_or_else(|| format!("{:#?}", process::pipebans(&all)))
            },
        )
    }
}

fn configuration(mpm: Mpm, logs: &str) -> String {
    let (module, sizes) = match mpm {
        Mpm::Event => (
            "event",
            "StartServers 2\nThreadsPerChild 64\nMaxRequestWorkers 256\nServerLimit 16\nAsyncRequestWorkerFactor 4",
        ),
        Mpm::Prefork => (
            "prefork",
            "StartServers 120\nMaxRequestWorkers 300\nServerLimit 300\nMaxSpareServers 150",
        ),
    };
    format!(
        r#"ServerRoot /var/site
DefaultRuntimeDir /run/apache2
PidFile /run/apache2/apache2.pid
ServerName www.example.org
Listen 80
LoadModule mpm_{module}_module /usr/lib/apache2/modules/mod_mpm_{module}.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
User www-data
Group www-data
{sizes}
MaxConnectionsPerChild 0
Timeout 60
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 30
GracefulShutdownTimeout 5
LogLevel warn
LogFormat "%h %l %u %t \"%r\" %>s %O \"%{{Referer}}i\" \"%{{User-Agent}}i\"" combined
DocumentRoot /var/site/htdocs
DirectoryIndex index.html
<Directory />
    Require all granted
</Directory>
ScriptAlias /cgi-bin/ /var/site/cgi-bin/
<Location /closed>
    Require all denied
</Location>
ProxyPass /slow/ http://{ROUTER4}:{PORT}/slow/ disablereuse=on timeout=60
{logs}
"#
    )
}
