//! Every command of docs/tutorial.md, in its order, on Debian's own Apache.

use std::path::Path;

use crate::support::{World, eventually, skip_without};

/// A block of the tutorial.
struct Step {
    script: String,
    /// Lines that it prints.
    output: Vec<String>,
    line: usize,
}

fn steps() -> Vec<Step> {
    let text = include_str!("../../docs/tutorial.md");
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, text)) = lines.next() {
        let Some(language) = text.strip_prefix("```") else {
            continue;
        };
        let block = lines.by_ref().map(|(_, text)| text.to_owned());
        let block: Vec<String> = block.take_while(|text| text != "```").collect();
        match language {
            "sh" => steps.push(Step {
                script: block.join("\n"),
                output: Vec::new(),
                line,
            }),
            "output" => steps.last_mut().unwrap().output = block,
            "text" => {}
            other => panic!("line {line}: a block of `{other}`"),
        }
    }
    steps
}

/// The status that the last line of a script names.
fn expected(script: &str) -> Option<i32> {
    let last = script.lines().last().unwrap();
    match last.rsplit_once("# ") {
        Some((_, "any status")) => None,
        Some((_, words)) if words.starts_with("status ") => {
            Some(words.strip_prefix("status ").unwrap().parse().unwrap())
        }
        _ => Some(0),
    }
}

/// On the server, or on the client that the first line names.
fn run(world: &World, step: &Step) {
    let script = &step.script;
    let client = script
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# from "));
    let script = match client {
        // The client has its address already.
        Some(client) => format!("curl() {{ command curl --interface {client} \"$@\"; }}\n{script}"),
        None => script.clone(),
    };
    let argv: &[&str] = match client {
        Some(_) => &["ip", "netns", "exec", "clients", "bash", "-ec", &script],
        None => &["bash", "-ec", &script],
    };
    // What a request causes is seen a moment after it.
    eventually(&format!("docs/tutorial.md, line {}", step.line), || {
        let said = world.run(argv);
        let printed = said.stdout.clone() + &said.stderr;
        let missing = step
            .output
            .iter()
            .find(|text| !printed.contains(text.trim()));
        match expected(&step.script) {
            Some(status) if status != said.status => Err(format!("{said:?}")),
            _ => missing.map_or(Ok(()), |text| {
                Err(format!("`{text}` is missing in {printed}"))
            }),
        }
    });
}

#[test]
fn each_command_of_the_tutorial_does_what_it_says() {
    let Some(world) = World::new() else { return };
    for program in ["/usr/sbin/a2enconf", "/usr/bin/curl"] {
        if !Path::new(program).exists() {
            return skip_without(program);
        }
    }
    world.must(&["rm", "-rf", "/etc/pipeban"]);
    world.must(&[
        "mkdir",
        "-p",
        "/usr/share/pipeban",
        "/etc/pipeban/conf.d",
        "/etc/pipeban/filters.d",
    ]);
    let tree = env!("CARGO_MANIFEST_DIR");
    for part in [
        "jails.d",
        "filters.d",
        "proxies.d",
        "search-engines.txt",
        "examples",
    ] {
        world.must(&[
            "cp",
            "-r",
            &format!("{tree}/config/{part}"),
            "/usr/share/pipeban/",
        ]);
    }
    let snippet = format!("{tree}/apache-conf/pipeban.conf");
    world.must(&["cp", &snippet, "/etc/apache2/conf-available/"]);
    world.write("/etc/pipeban/pipeban.toml", "");
    world.write("/var/www/html/index.html", "hello\n");
    // No systemd runs here.
    world.write(
        "/usr/local/bin/systemctl",
        "#!/bin/sh\n[ \"$*\" = 'restart pipeban' ] || exit 1\npipeban engine --stop\n\
         setsid --fork pipeban engine </dev/null >/dev/null 2>&1\n\
         until pipeban status >/dev/null 2>&1; do sleep 0.05; done\n",
    );
    world.must(&["chmod", "755", "/usr/local/bin/systemctl"]);
    world.must(&["apache2ctl", "start"]);
    for (number, step) in steps().iter().enumerate() {
        run(&world, step);
        if number == 0 {
            world.engine();
        }
    }
}
