use super::*;

/// Arguments as typed.
#[derive(Debug, clap::Parser)]
struct Typed {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    args: Args,
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    use clap::Parser as _;
    for typed in [
        vec!["t"],
        vec!["t", "--jail", "a", "--filter", "b", "-"],
        vec!["t", "--line", "x", "file"],
        vec!["t", "--kind", "other", "-"],
        vec!["t", "--jail", "a b", "-"],
    ] {
        assert!(Typed::try_parse_from(&typed).is_err(), "{typed:?}");
    }
    let raw = Typed::try_parse_from(["t", "--kind", "raw", "-"]).unwrap();
    assert!(matches!(
        test(&raw.args, &raw.global),
        Err(Failure::Usage(_))
    ));
}
