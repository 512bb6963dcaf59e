//! Follows Apache's configuration from its root file, as Apache reads it.
//!
//! Over 500 lines because all directives that it follows act on the state of one walk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::directive::{self, Directive, expand, words};
use super::files::{Files, included};
use super::place::Place;
use super::remoteip::RemoteIp;
use super::target::Target;
use crate::record::Kind;

/// Which log directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// `ErrorLog`
    Error,
    /// `CustomLog`
    Custom,
    /// `TransferLog`
    Transfer,
    /// `GlobalLog`: in addition to every server's own.
    Global,
}

impl LogKind {
    fn of(directive: &Directive) -> Option<LogKind> {
        [
            LogKind::Error,
            LogKind::Custom,
            LogKind::Transfer,
            LogKind::Global,
        ]
        .into_iter()
        .find(|kind| directive.is(kind.name()))
    }

    /// The lines that it writes.
    pub(super) fn lines(self) -> Kind {
        match self {
            LogKind::Error => Kind::Error,
            LogKind::Custom | LogKind::Transfer | LogKind::Global => Kind::Access,
        }
    }

    /// The directive's name.
    pub fn name(self) -> &'static str {
        match self {
            LogKind::Error => "ErrorLog",
            LogKind::Custom => "CustomLog",
            LogKind::Transfer => "TransferLog",
            LogKind::Global => "GlobalLog",
        }
    }
}

/// One log directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirective {
    /// Which.
    pub kind: LogKind,
    /// Where.
    pub place: Place,
    /// Its last line, where it is continued over several.
    pub last_line: usize,
    /// Its words, with `${VARIABLES}` not replaced.
    pub words: Vec<String>,
    /// Its name with the blanks behind it, and what follows the first word, as they are written.
    pub(super) around: (String, String),
    /// The first word is in double quotes.
    pub(super) quotes: bool,
    /// Where its lines go.
    pub target: Target,
    /// It logs only some requests (`env=`, `expr=`).
    pub conditional: bool,
    /// It is in a `<Macro>`, whose parameters its words still have.
    pub in_macro: bool,
}

impl LogDirective {
    /// Whether it pipes into pipeban.
    pub(super) fn pipes(&self) -> bool {
        matches!(self.target, Target::Pipeban(_))
    }

    /// `ErrorLog at FILE:LINE`
    pub(super) fn named(&self) -> String {
        format!("{} at {}", self.kind.name(), self.place)
    }
}

/// The main server or a virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `<VirtualHost>`; `None`: the main server.
    pub place: Option<Place>,
    /// `ServerName`, else the addresses.
    pub name: String,
    /// The log directives in it, in order.
    pub logs: Vec<LogDirective>,
    /// The `ErrorLogFormat` in it.
    pub error_format: Option<String>,
    /// What it says of mod_remoteip.
    pub(super) remoteip: RemoteIp,
}

/// What Apache's configuration says about logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The main server first, then the virtual hosts in order.
    pub servers: Vec<Server>,
    /// `LogFormat` by nickname; the last one without a nickname, of `TransferLog`, by an empty one.
    pub formats: BTreeMap<String, String>,
    /// `BufferedLogs On`.
    pub buffered: Option<Place>,
    /// `HostnameLookups On` or `Double`.
    pub lookups: Option<Place>,
    /// `Listen`: ports that other hosts may reach, each with its first place.
    pub listens: BTreeMap<u16, Place>,
    /// Every file that was read.
    pub files: BTreeSet<PathBuf>,
    /// What cannot be followed, for the administrator.
    pub notes: Vec<String>,
    /// It includes `conf-enabled`.
    pub reads_snippets: bool,
}

/// More is a loop.
const MOST_FILES: usize = 10_000;
const DEEPEST: usize = 40;
static NO_NAME: String = String::new();

/// Built into Debian's Apache, beside what `LoadModule` names.
const BUILT_IN: [&str; 12] = [
    "core.c",
    "core_module",
    "http_core.c",
    "http_module",
    "mod_so.c",
    "so_module",
    "mod_log_config.c",
    "log_config_module",
    "mod_logio.c",
    "logio_module",
    "mod_unixd.c",
    "unixd_module",
];

/// Reads everything from `root` on.
///
/// # Errors
/// Only when `root` itself cannot be read.
pub(super) fn walk(
    files: &dyn Files,
    root: &Path,
    variables: BTreeMap<String, String>,
) -> std::io::Result<Layout> {
    let text = files.read(root)?;
    let mut walk = Walk {
        files,
        variables,
        modules: BUILT_IN.iter().map(|name| (*name).to_owned()).collect(),
        server_root: root.parent().unwrap_or(Path::new("/")).to_owned(),
        current: 0,
        budget: MOST_FILES,
        macros: BTreeMap::new(),
        layout: Layout {
            servers: vec![Server {
                place: None,
                name: "the main server".into(),
                logs: Vec::new(),
                error_format: None,
                remoteip: RemoteIp::default(),
            }],
            ..Layout::default()
        },
    };
    walk.text(root, &text, 0);
    Ok(walk.layout)
}

/// The log directives of one text, active or not: conditions and includes are ignored.
pub(super) fn logs_in(
    file: &Path,
    text: &str,
    variables: &BTreeMap<String, String>,
    server_root: &Path,
) -> Vec<LogDirective> {
    directive::directives(text)
        .iter()
        .filter_map(|directive| log_directive(file, directive, variables, server_root))
        .collect()
}

fn log_directive(
    file: &Path,
    directive: &Directive,
    variables: &BTreeMap<String, String>,
    server_root: &Path,
) -> Option<LogDirective> {
    let kind = LogKind::of(directive)?;
    let words = words(&directive.rest);
    let (quotes, tail) = directive::after_first(&directive.rest);
    let first = expand(words.first()?, variables);
    let limits = |word: &String| word.starts_with("env=") || word.starts_with("expr=");
    Some(LogDirective {
        kind,
        place: Place {
            file: file.to_owned(),
            line: directive.line,
        },
        last_line: directive.last_line,
        target: Target::parse(&first, kind == LogKind::Error, server_root),
        conditional: words.iter().skip(1).any(limits),
        words,
        around: (
            format!("{}{}", directive.name, directive.gap),
            tail.to_owned(),
        ),
        quotes,
        in_macro: false,
    })
}

struct Walk<'a> {
    files: &'a dyn Files,
    variables: BTreeMap<String, String>,
    modules: BTreeSet<String>,
    server_root: PathBuf,
    /// Index of the server with the open section.
    current: usize,
    budget: usize,
    /// By name in lower case.
    macros: BTreeMap<String, Macro>,
    layout: Layout,
}

/// `<Macro NAME PARAMETERS>`
#[derive(Clone)]
struct Macro {
    parameters: Vec<String>,
    file: PathBuf,
    body: Vec<Directive>,
}

impl Macro {
    /// The text with every parameter replaced; of two that begin in one place the longer one.
    fn replaced(&self, text: &str, arguments: &[String]) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let given = self.parameters.iter().zip(arguments);
            let found = given
                .filter(|(name, _)| !name.is_empty() && rest.starts_with(name.as_str()))
                .max_by_key(|(name, _)| name.len());
            let taken = match found {
                Some((name, value)) => {
                    out.push_str(value);
                    name.len()
                }
                None => {
                    out.push(first);
                    first.len_utf8()
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        out
    }
}

impl Walk<'_> {
    fn text(&mut self, file: &Path, text: &str, depth: usize) {
        self.layout.files.insert(file.to_owned());
        let directives = directive::directives(text);
        self.directives(file, directives.into_iter(), None, depth);
    }

    /// `raw`: the same directives with the parameters of a macro.
    fn directives(
        &mut self,
        file: &Path,
        mut directives: impl Iterator<Item = Directive>,
        raw: Option<&[Directive]>,
        depth: usize,
    ) {
        // Open sections that are not active, innermost last.
        let mut skipping: Vec<String> = Vec::new();
        let mut number = 0;
        while let Some(directive) = directives.next() {
            let raw = raw.and_then(|raw| raw.get(number));
            number += 1;
            let place = Place {
                file: file.to_owned(),
                line: directive.line,
            };
            if let Some(end) = directive.name.strip_prefix("</") {
                if skipping
                    .last()
                    .is_some_and(|open| open.eq_ignore_ascii_case(end))
                {
                    skipping.pop();
                } else if end.eq_ignore_ascii_case("VirtualHost") {
                    self.current = 0;
                }
            } else if !skipping.is_empty() {
                // In a skipped section only sections of the same name are counted.
                if let Some(name) = directive.name.strip_prefix('<')
                    && skipping
                        .last()
                        .is_some_and(|open| open.eq_ignore_ascii_case(name))
                {
                    skipping.push(name.to_owned());
                }
            } else if directive.is("<Macro") {
                let body = directives.by_ref().take_while(|inner| !inner.is("</Macro"));
                let body: Vec<Directive> = body.collect();
                number += body.len() + 1;
                self.define(file, &directive, body);
            } else if let Some(name) = directive.name.strip_prefix('<') {
                if !self.enter(name, &directive, &place) {
                    skipping.push(name.to_owned());
                }
            } else {
                self.directive(&directive, raw, &place, depth);
            }
        }
    }

    fn define(&mut self, file: &Path, section: &Directive, body: Vec<Directive>) {
        let mut words = words(&section.rest).into_iter();
        let name = words.next().unwrap_or_default().to_lowercase();
        let defined = Macro {
            parameters: words.collect(),
            file: file.to_owned(),
            body,
        };
        self.macros.insert(name, defined);
    }

    /// `Use NAME ARGUMENTS`
    fn insert(&mut self, words: &[String], place: &Place, depth: usize) {
        let (name, arguments) = words.split_first().unwrap_or((&NO_NAME, &[]));
        let Some(defined) = self.macros.get(&name.to_lowercase()).cloned() else {
            return self.note(place, &format!("no macro `{name}` is known here"));
        };
        if depth >= DEEPEST || self.budget == 0 {
            return self.note(
                place,
                "macros are nested too deep: pipeban ignores this one",
            );
        }
        self.budget -= 1;
        let body = defined.body.iter().map(|directive| Directive {
            name: defined.replaced(&directive.name, arguments),
            rest: defined.replaced(&directive.rest, arguments),
            ..directive.clone()
        });
        let body: Vec<Directive> = body.collect();
        self.directives(
            &defined.file,
            body.into_iter(),
            Some(&defined.body),
            depth + 1,
        );
    }

    /// Opens a section; false: it is not active.
    fn enter(&mut self, name: &str, section: &Directive, place: &Place) -> bool {
        let rest = expand(&section.rest, &self.variables);
        let argument = words(&rest).into_iter().next().unwrap_or_default();
        let (negated, argument) = match argument.strip_prefix('!') {
            Some(argument) => (true, argument),
            None => (false, argument.as_str()),
        };
        match name.to_ascii_lowercase().as_str() {
            "virtualhost" => {
                self.layout.servers.push(Server {
                    place: Some(place.clone()),
                    name: rest,
                    logs: Vec::new(),
                    error_format: None,
                    remoteip: RemoteIp::default(),
                });
                self.current = self.layout.servers.len() - 1;
                true
            }
            "ifmodule" => self.modules.contains(argument) != negated,
            "ifdefine" => self.variables.contains_key(argument) != negated,
            "iffile" => self.files.exists(&self.server_root.join(argument)) != negated,
            "ifversion" | "ifdirective" | "ifsection" => {
                self.note(place, "pipeban assumes that this condition is true");
                true
            }
            _ => true,
        }
    }

    /// `raw`: the directive as it is in its macro.
    fn directive(
        &mut self,
        directive: &Directive,
        raw: Option<&Directive>,
        place: &Place,
        depth: usize,
    ) {
        let plain = directive.disguised(&self.variables);
        if plain.as_ref().and_then(LogKind::of).is_some() {
            return self.note(
                place,
                "pipeban reads the name of this directive only without quotes and variables",
            );
        }
        let directive = plain.as_ref().unwrap_or(directive);
        let arguments = words(&expand(&directive.rest, &self.variables));
        let first = arguments.first().map_or("", String::as_str);
        if let Some(mut log) =
            log_directive(&place.file, directive, &self.variables, &self.server_root)
        {
            if let Some(raw) = raw {
                log.words = words(&raw.rest);
                let (quotes, tail) = directive::after_first(&raw.rest);
                log.quotes = quotes;
                log.around.1 = tail.to_owned();
                log.in_macro = true;
            }
            if let Some(server) = self.layout.servers.get_mut(self.current) {
                server.logs.push(log);
            }
        } else if directive.is("Include") || directive.is("IncludeOptional") {
            self.include(first, directive.is("Include"), place, depth);
        } else if directive.is("ServerRoot") {
            self.server_root = first.into();
        } else if directive.is("Define") {
            let value = arguments.get(1).cloned().unwrap_or_default();
            self.variables.insert(first.to_owned(), value);
        } else if directive.is("UnDefine") {
            self.variables.remove(first);
        } else if directive.is("LoadModule") {
            self.modules.insert(first.to_owned());
            if let Some(file) = arguments.get(1).map(Path::new).and_then(Path::file_stem) {
                self.modules.insert(format!("{}.c", file.to_string_lossy()));
            }
        } else if directive.is("ServerName") {
            if let Some(server) = self.layout.servers.get_mut(self.current)
                && server.place.is_some()
            {
                first.clone_into(&mut server.name);
            }
        } else if directive.is("Listen") {
            if let Some(port) = port_from_outside(first) {
                self.layout.listens.entry(port).or_insert(place.clone());
            }
        } else if directive.is("LogFormat") {
            if let [format, more @ ..] = arguments.as_slice() {
                let name = more.first().cloned().unwrap_or_default();
                self.layout.formats.insert(name, format.clone());
            }
        } else if directive.is("ErrorLogFormat") {
            // Two arguments: further lines for each connection or request.
            if let ([format], Some(server)) = (
                arguments.as_slice(),
                self.layout.servers.get_mut(self.current),
            ) {
                server.error_format = Some(format.clone());
            }
        } else if directive.is("HostnameLookups") && !first.eq_ignore_ascii_case("off") {
            self.layout.lookups = Some(place.clone());
        } else if directive.is("BufferedLogs") && first.eq_ignore_ascii_case("on") {
            self.layout.buffered = Some(place.clone());
        } else if let Some(server) = self.layout.servers.get_mut(self.current)
            && server
                .remoteip
                .take(directive, &arguments, place, self.files, &self.server_root)
        {
        } else if directive.is("Use") {
            self.insert(&arguments, place, depth);
        }
    }

    fn include(&mut self, pattern: &str, required: bool, place: &Place, depth: usize) {
        let pattern = self.server_root.join(pattern);
        self.layout.reads_snippets |= pattern.iter().any(|name| name == "conf-enabled");
        let found = included(self.files, &pattern);
        if found.is_empty() && required {
            self.note(place, &format!("{} matches no file", pattern.display()));
        }
        for file in found {
            if depth >= DEEPEST || self.budget == 0 {
                self.note(
                    place,
                    "more than 10000 files are included, or 40 levels deep: pipeban ignores the rest",
                );
                return;
            }
            self.budget -= 1;
            match self.files.read(&file) {
                Ok(text) => self.text(&file, &text, depth + 1),
                Err(error) => self.note(place, &format!("cannot read {}: {error}", file.display())),
            }
        }
    }

    fn note(&mut self, place: &Place, text: &str) {
        self.layout.notes.push(format!("{place}: {text}"));
    }
}

/// The port of `80`, `192.0.2.1:80` or `[::]:80`; `None`: on loopback only.
fn port_from_outside(text: &str) -> Option<u16> {
    let (address, port) = text.rsplit_once(':').unwrap_or(("", text));
    let loopback = address.starts_with("127.") || matches!(address, "[::1]" | "localhost");
    port.parse().ok().filter(|_| !loopback)
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Fake;
    use super::*;

    fn layout(files: &[(&str, &str)]) -> Layout {
        let variables = BTreeMap::from([("LOGS".to_owned(), "/var/log/apache2".to_owned())]);
        walk(&Fake::new(files), Path::new("/e/apache2.conf"), variables).unwrap()
    }

    fn shown(layout: &Layout) -> Vec<String> {
        layout
            .servers
            .iter()
            .flat_map(|server| {
                server.logs.iter().map(|log| {
                    let file = log
                        .target
                        .file()
                        .map_or("-".into(), |file| file.display().to_string());
                    format!("{} {} {} {file}", server.name, log.kind.name(), log.place)
                })
            })
            .collect()
    }

    #[test]
    fn logs_belong_to_their_server() {
        let layout = layout(&[
            (
                "/e/apache2.conf",
                "ErrorLog ${LOGS}/error.log\nIncludeOptional sites/*.conf\nInclude none.conf\nCustomLog last common\n",
            ),
            (
                "/e/sites/a.conf",
                "<VirtualHost *:80>\n\tServerName a.example\n ErrorLog logs/a\n <Directory /x>\n </Directory>\n</VirtualHost>\n<VirtualHost *:81>\nInclude inner\n</VirtualHost>",
            ),
            ("/e/inner", "TransferLog \"/t x\""),
        ]);
        assert_eq!(
            shown(&layout),
            [
                "the main server ErrorLog /e/apache2.conf:1 /var/log/apache2/error.log",
                "the main server CustomLog /e/apache2.conf:4 /e/last",
                "a.example ErrorLog /e/sites/a.conf:3 /e/logs/a",
                "*:81 TransferLog /e/inner:1 /t x",
            ]
        );
        assert_eq!(
            layout.notes,
            ["/e/apache2.conf:3: /e/none.conf matches no file"]
        );
    }

    #[test]
    fn conditions_are_followed() {
        let layout = layout(&[(
            "/e/apache2.conf",
            "LoadModule ssl_module /m/mod_ssl.so\nDefine DEBUG\n\
             <IfModule mod_ssl.c>\nErrorLog /1\n</IfModule>\n\
             <IfModule !ssl_module>\nErrorLog /2\n<IfModule x>\n</IfModule>\nErrorLog /3\n</IfModule>\n\
             <IfDefine DEBUG>\nErrorLog /4\n</IfDefine>\n<IfDefine !DEBUG>\nErrorLog /5\n</IfDefine>\n\
             <IfFile /none>\nErrorLog /6\n</IfFile>\n<Macro V $x>\nErrorLog /7\n</Macro>\n\
             <IfVersion >= 2.4>\nErrorLog /8\n</IfVersion>\n",
        )]);
        let files: Vec<_> = shown(&layout)
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap().to_owned())
            .collect();
        assert_eq!(files, ["/1", "/4", "/8"]);
        assert_eq!(layout.notes.len(), 1);
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let layout = layout(&[("/e/apache2.conf", "ErrorLog /1\nInclude apache2.conf\n")]);
        assert!(layout.notes[0].contains("more than 10000 files"));
    }

    #[test]
    fn formats_conditions_and_buffers_are_found() {
        let layout = layout(&[(
            "/e/apache2.conf",
            "LogFormat \"%h \\\"%r\\\"\" x\nBufferedLogs On\nCustomLog /a x env=!static\n",
        )]);
        assert_eq!(layout.formats["x"], "%h \"%r\"");
        assert_eq!(layout.buffered.unwrap().line, 2);
        assert!(layout.servers[0].logs[0].conditional);
    }
}
