//! A pattern as a finite automaton, and two questions about two of them: is there a text that
//! both match, and does one match whatever the other matches?
//!
//! Both are answered by walking through pairs of states, within bounds; beyond them the answer is
//! that nobody knows.

use std::collections::HashMap;

use regex_automata::nfa::thompson::{NFA, State as NfaState, WhichCaptures};
use regex_automata::util::look::Look;
use regex_syntax::hir::Hir;

/// Memory of one automaton while it is built.
const LARGEST: usize = 8 << 20;
/// Pairs of states that are looked at for one answer.
const MOST_PAIRS: usize = 4 << 20;

/// A pattern, to be matched anywhere in a text unless it says where.
#[derive(Debug)]
pub(super) struct Automaton {
    states: Vec<State>,
    start: u32,
}

#[derive(Debug)]
enum State {
    /// One of these, without a byte.
    Free(Vec<u32>),
    Look(Look, u32),
    /// From the first byte to the second, both included.
    Bytes(Vec<(u8, u8, u32)>),
    Match,
}

/// Where in the text a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Front,
    Inside,
    /// No byte may follow.
    End,
}

/// Whether a text is matched by two patterns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Common {
    /// None is; that is proved.
    None,
    /// This one, unless a `\b` forbids it; none is shorter.
    Text(Vec<u8>),
    Unknown,
}

impl Automaton {
    /// `None`: it would be too large.
    pub(super) fn new(pattern: &Hir) -> Option<Automaton> {
        let config = NFA::config()
            .utf8(false)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(LARGEST));
        let mut compiler = NFA::compiler();
        let nfa = compiler.configure(config).build_from_hir(pattern).ok()?;
        let states = nfa.states().iter().map(|state| match state {
            NfaState::ByteRange { trans } => {
                State::Bytes(vec![(trans.start, trans.end, trans.next.as_u32())])
            }
            NfaState::Sparse(sparse) => {
                let ranges = sparse.transitions.iter();
                State::Bytes(ranges.map(|t| (t.start, t.end, t.next.as_u32())).collect())
            }
            NfaState::Dense(dense) => {
                let next = |byte| Some((byte, byte, dense.matches_byte(byte)?.as_u32()));
                State::Bytes((0..=u8::MAX).filter_map(next).collect())
            }
            NfaState::Look { look, next } => State::Look(*look, next.as_u32()),
            NfaState::Union { alternates } => {
                State::Free(alternates.iter().map(|id| id.as_u32()).collect())
            }
            NfaState::BinaryUnion { alt1, alt2 } => State::Free(vec![alt1.as_u32(), alt2.as_u32()]),
            NfaState::Capture { next, .. } => State::Free(vec![next.as_u32()]),
            NfaState::Fail => State::Free(Vec::new()),
            NfaState::Match { .. } => State::Match,
        });
        Some(Automaton {
            states: states.collect(),
            start: nfa.start_unanchored().as_u32(),
        })
    }

    /// A text that both match; `whole` is one that matches a text from end to end or not at all.
    pub(super) fn common(&self, whole: &Automaton) -> Common {
        let (mine, others) = (self.states.len(), whole.states.len());
        let mut seen = match mine.checked_mul(others * 3) {
            Some(pairs) if pairs <= 64 * MOST_PAIRS => vec![0u64; pairs / 64 + 1],
            _ => return Common::Unknown,
        };
        let mut pairs: Vec<Pair> = Vec::new();
        let first = Pair {
            mine: self.start,
            other: whole.start,
            at: At::Front,
            from: None,
        };
        // Those reached with so many bytes, and those with one more.
        let (mut now, mut next) = (vec![first], Vec::new());
        while !now.is_empty() {
            while let Some(pair) = now.pop() {
                let number =
                    (pair.mine as usize * others + pair.other as usize) * 3 + pair.at as usize;
                let Some(word) = seen.get_mut(number / 64) else {
                    continue;
                };
                if *word & (1 << (number % 64)) != 0 {
                    continue;
                }
                *word |= 1 << (number % 64);
                if pairs.len() == MOST_PAIRS {
                    return Common::Unknown;
                }
                let here = pairs.len();
                let (Some(own), Some(other)) = (self.state(pair.mine), whole.state(pair.other))
                else {
                    continue;
                };
                if matches!((own, other), (State::Match, State::Match)) {
                    pairs.push(pair);
                    return Common::Text(text_to(&pairs, here));
                }
                let from = Some((here, None));
                for (mine, at) in own.free(pair.at) {
                    now.push(Pair {
                        mine,
                        at,
                        from,
                        ..pair
                    });
                }
                for (other, at) in other.free(pair.at) {
                    now.push(Pair {
                        other,
                        at,
                        from,
                        ..pair
                    });
                }
                if pair.at != At::End {
                    for (mine, other, byte) in steps(own, pair.mine, other) {
                        let from = Some((here, Some(byte)));
                        let at = At::Inside;
                        next.push(Pair {
                            mine,
                            other,
                            at,
                            from,
                        });
                    }
                }
                pairs.push(pair);
            }
            std::mem::swap(&mut now, &mut next);
        }
        Common::None
    }

    /// Whether `outer` matches every text that this one matches; `None`: not known within
    /// `budget`, from which the steps taken are subtracted.
    pub(super) fn is_within(&self, outer: &Automaton, budget: &mut usize) -> Option<bool> {
        // Such a look is passed here always, which may only add texts to this one.
        if outer.looks_at_words() {
            return None;
        }
        let bytes = representatives(&[self, outer]);
        let mut sets = Sets::default();
        let start = sets.number(outer.closure(vec![outer.start], At::Front));
        let mut seen = std::collections::HashSet::new();
        let mut waiting = vec![(self.start, start, At::Front)];
        while let Some(pair) = waiting.pop() {
            let (mine, set, at) = pair;
            if !seen.insert(pair) {
                continue;
            }
            *budget = budget.checked_sub(1)?;
            let own = self.state(mine)?;
            // Whatever follows is matched.
            if outer.holds_match(sets.get(set)?) {
                continue;
            }
            if matches!(own, State::Match) {
                let ended = outer.closure(sets.get(set)?.to_vec(), At::End);
                if !outer.holds_match(&ended) {
                    return Some(false);
                }
            }
            waiting.extend(own.free(at).map(|(next, at)| (next, set, at)));
            if at == At::End {
                continue;
            }
            for byte in &bytes {
                let Some(next) = own.after(mine, *byte) else {
                    continue;
                };
                let after = match sets.after.get(&(set, *byte)) {
                    Some(known) => *known,
                    None => {
                        let members = sets.get(set)?;
                        *budget = budget.checked_sub(members.len())?;
                        let moved = members
                            .iter()
                            .filter_map(|member| outer.state(*member)?.after(*member, *byte));
                        let moved = outer.closure(moved.collect(), At::Inside);
                        let number = sets.number(moved);
                        sets.after.insert((set, *byte), number);
                        number
                    }
                };
                waiting.push((next, after, At::Inside));
            }
        }
        Some(true)
    }

    fn state(&self, at: u32) -> Option<&State> {
        self.states.get(at as usize)
    }

    fn looks_at_words(&self) -> bool {
        let word = |state: &State| matches!(state, State::Look(look, _) if is_word(*look));
        self.states.iter().any(word)
    }

    fn holds_match(&self, set: &[u32]) -> bool {
        set.iter()
            .any(|at| matches!(self.state(*at), Some(State::Match)))
    }

    /// All states reached from these without a byte, in order.
    fn closure(&self, from: Vec<u32>, at: At) -> Vec<u32> {
        let mut waiting = from;
        let mut reached = std::collections::BTreeSet::new();
        while let Some(state) = waiting.pop() {
            if !reached.insert(state) {
                continue;
            }
            let next = self.state(state).into_iter().flat_map(|s| s.free(at));
            // The end is there only where it is asked for.
            waiting.extend(next.filter(|(_, then)| *then == at).map(|(next, _)| next));
        }
        // What is passed without a byte has done its work.
        let lasting = |at: &u32| !matches!(self.state(*at), Some(State::Free(_)) | None);
        reached.into_iter().filter(lasting).collect()
    }
}

impl State {
    /// What follows without a byte, and where in the text that is.
    fn free(&self, at: At) -> impl Iterator<Item = (u32, At)> + '_ {
        let (all, then): (&[u32], At) = match self {
            State::Free(all) => (all, at),
            State::Look(look, next) => match look {
                Look::Start | Look::StartLF | Look::StartCRLF if at != At::Front => (&[], at),
                Look::End | Look::EndLF | Look::EndCRLF => (std::slice::from_ref(next), At::End),
                _ => (std::slice::from_ref(next), at),
            },
            State::Bytes(_) | State::Match => (&[], at),
        };
        all.iter().map(move |next| (*next, then))
    }

    /// What follows one byte; a match stays one.
    fn after(&self, own: u32, byte: u8) -> Option<u32> {
        match self {
            State::Match => Some(own),
            State::Bytes(ranges) => ranges
                .iter()
                .find(|(from, to, _)| (*from..=*to).contains(&byte))
                .map(|(_, _, next)| *next),
            State::Free(_) | State::Look(..) => None,
        }
    }

    /// The same for every byte: ranges and what follows.
    fn ranges(&self, own: u32) -> std::borrow::Cow<'_, [(u8, u8, u32)]> {
        match self {
            State::Match => vec![(0, u8::MAX, own)].into(),
            State::Bytes(ranges) => ranges.as_slice().into(),
            State::Free(_) | State::Look(..) => Vec::new().into(),
        }
    }
}

fn is_word(look: Look) -> bool {
    !matches!(
        look,
        Look::Start | Look::End | Look::StartLF | Look::EndLF | Look::StartCRLF | Look::EndCRLF
    )
}

#[derive(Clone, Copy)]
struct Pair {
    mine: u32,
    other: u32,
    at: At,
    /// The pair before, and the byte between.
    from: Option<(usize, Option<u8>)>,
}

fn text_to(pairs: &[Pair], last: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut at = pairs.get(last);
    while let Some((before, byte)) = at.and_then(|pair| pair.from) {
        text.extend(byte);
        at = pairs.get(before);
    }
    text.reverse();
    text
}

/// What both may do with one byte, and such a byte. `other` ends with its match.
fn steps(own: &State, mine: u32, other: &State) -> Vec<(u32, u32, u8)> {
    let State::Bytes(others) = other else {
        return Vec::new();
    };
    let own = own.ranges(mine);
    let all = own.iter().flat_map(|a| others.iter().map(move |b| (a, b)));
    all.filter_map(|(a, b)| {
        let (from, to) = (a.0.max(b.0), a.1.min(b.1));
        (from <= to).then(|| (a.2, b.2, legible(from, to)))
    })
    .collect()
}

/// A byte of the range that reads well.
fn legible(from: u8, to: u8) -> u8 {
    let within = |byte: &u8| (from..=to).contains(byte);
    let good = b"x1X/-_ ".iter().copied().find(within);
    good.or_else(|| (b'!'..=b'~').find(within)).unwrap_or(from)
}

/// A byte of each class of bytes that no automaton tells apart. Not the newline, which stands in no
/// line.
fn representatives(all: &[&Automaton]) -> Vec<u8> {
    let mut begins = std::collections::BTreeSet::from([0, b'\n' + 1]);
    for state in all.iter().flat_map(|automaton| &automaton.states) {
        let State::Bytes(ranges) = state else {
            continue;
        };
        for (from, to, _) in ranges {
            begins.insert(*from);
            begins.extend(to.checked_add(1));
        }
    }
    begins.remove(&b'\n');
    begins.into_iter().collect()
}

/// Sets of states, each with a number.
#[derive(Default)]
struct Sets {
    numbers: HashMap<Vec<u32>, usize>,
    sets: Vec<Vec<u32>>,
    /// Known steps.
    after: HashMap<(usize, u8), usize>,
}

impl Sets {
    fn number(&mut self, set: Vec<u32>) -> usize {
        let next = self.sets.len();
        let number = *self.numbers.entry(set.clone()).or_insert(next);
        if number == next {
            self.sets.push(set);
        }
        number
    }

    fn get(&self, number: usize) -> Option<&[u32]> {
        self.sets.get(number).map(Vec::as_slice)
    }
}
