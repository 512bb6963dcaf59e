//! Follows Apache's configuration from its root file, as Apache reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::directive::{self, Directive, expand, words};
use super::files::{Files, included};
use super::target::Target;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, by the name under which Apache reads it.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

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

    /// As it stands in a file.
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
    /// Its words as they stand, variables not put in.
    pub words: Vec<String>,
    /// Where its lines go.
    pub target: Target,
    /// Only some requests (`env=`, `expr=`).
    pub conditional: bool,
}

/// The main server or a virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where `<VirtualHost>` stands; `None`: the main server.
    pub place: Option<Place>,
    /// `ServerName`, else the addresses.
    pub name: String,
    /// Its own log directives, in order.
    pub logs: Vec<LogDirective>,
    /// Its own `ErrorLogFormat`, as it stands.
    pub error_format: Option<String>,
}

/// What Apache's configuration says about logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The main server first, then the virtual hosts in order.
    pub servers: Vec<Server>,
    /// `LogFormat` by nickname, as it stands.
    pub formats: BTreeMap<String, String>,
    /// `BufferedLogs On`.
    pub buffered: Option<Place>,
    /// `HostnameLookups On` or `Double`.
    pub lookups: Option<Place>,
    /// Every file that was read.
    pub files: BTreeSet<PathBuf>,
    /// What could not be followed, for the operator.
    pub notes: Vec<String>,
}

/// More is a loop.
const MOST_FILES: usize = 10_000;
const DEEPEST: usize = 40;

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
        layout: Layout {
            servers: vec![Server {
                place: None,
                name: "the main server".into(),
                logs: Vec::new(),
                error_format: None,
            }],
            ..Layout::default()
        },
    };
    walk.text(root, &text, 0);
    Ok(walk.layout)
}

/// The log directives of one text, in use or not: no condition is looked at, nothing included.
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
    })
}

struct Walk<'a> {
    files: &'a dyn Files,
    variables: BTreeMap<String, String>,
    modules: BTreeSet<String>,
    server_root: PathBuf,
    /// Index of the server whose section is open.
    current: usize,
    budget: usize,
    layout: Layout,
}

impl Walk<'_> {
    fn text(&mut self, file: &Path, text: &str, depth: usize) {
        self.layout.files.insert(file.to_owned());
        // Sections that are open and not active, innermost last.
        let mut skipping: Vec<String> = Vec::new();
        for directive in directive::directives(text) {
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
                // Inside of a skipped section only its own kind has to be counted.
                if let Some(name) = directive.name.strip_prefix('<')
                    && skipping
                        .last()
                        .is_some_and(|open| open.eq_ignore_ascii_case(name))
                {
                    skipping.push(name.to_owned());
                }
            } else if let Some(name) = directive.name.strip_prefix('<') {
                if !self.enter(name, &directive, &place) {
                    skipping.push(name.to_owned());
                }
            } else {
                self.directive(&directive, &place, depth);
            }
        }
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
                });
                self.current = self.layout.servers.len() - 1;
                true
            }
            "ifmodule" => self.modules.contains(argument) != negated,
            "ifdefine" => self.variables.contains_key(argument) != negated,
            "iffile" => self.files.exists(&self.server_root.join(argument)) != negated,
            "macro" => {
                self.note(place, "logs inside of `<Macro>` are not looked at");
                false
            }
            "ifversion" | "ifdirective" | "ifsection" => {
                self.note(place, "this condition is taken as true");
                true
            }
            _ => true,
        }
    }

    fn directive(&mut self, directive: &Directive, place: &Place, depth: usize) {
        let arguments = words(&expand(&directive.rest, &self.variables));
        let first = arguments.first().map_or("", String::as_str);
        if let Some(log) = log_directive(&place.file, directive, &self.variables, &self.server_root)
        {
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
        } else if directive.is("LogFormat") {
            if let [format, name, ..] = arguments.as_slice() {
                self.layout.formats.insert(name.clone(), format.clone());
            }
        } else if directive.is("ErrorLogFormat") {
            // With a word before it: lines of their own for connections or requests.
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
        } else if directive.is("Use") {
            self.note(place, "logs of a macro are not looked at");
        }
    }

    fn include(&mut self, pattern: &str, required: bool, place: &Place, depth: usize) {
        let pattern = self.server_root.join(pattern);
        let found = included(self.files, &pattern);
        if found.is_empty() && required {
            self.note(place, &format!("{} includes nothing", pattern.display()));
        }
        for file in found {
            if depth >= DEEPEST || self.budget == 0 {
                self.note(
                    place,
                    "too many files are included: the rest is not looked at",
                );
                return;
            }
            self.budget -= 1;
            match self.files.read(&file) {
                Ok(text) => self.text(&file, &text, depth + 1),
                Err(error) => self.note(
                    place,
                    &format!("{} cannot be read: {error}", file.display()),
                ),
            }
        }
    }

    fn note(&mut self, place: &Place, text: &str) {
        self.layout.notes.push(format!("{place}: {text}"));
    }
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
    fn every_server_has_its_own_logs() {
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
            ["/e/apache2.conf:3: /e/none.conf includes nothing"]
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
        assert_eq!(layout.notes.len(), 2);
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let layout = layout(&[("/e/apache2.conf", "ErrorLog /1\nInclude apache2.conf\n")]);
        assert!(layout.notes[0].contains("too many files"));
    }

    #[test]
    fn formats_conditions_and_buffers_are_seen() {
        let layout = layout(&[(
            "/e/apache2.conf",
            "LogFormat \"%h \\\"%r\\\"\" x\nBufferedLogs On\nCustomLog /a x env=!static\n",
        )]);
        assert_eq!(layout.formats["x"], "%h \"%r\"");
        assert_eq!(layout.buffered.unwrap().line, 2);
        assert!(layout.servers[0].logs[0].conditional);
    }
}
