//! Who may read what, and how it changes: the configurations of a run, drawn from its seed.

use std::{
    cell::{OnceCell, RefCell},
    iter,
    ops::Range,
    rc::Rc,
};

use contacts_gateway::{
    config::Config,
    edge::{caller, key::Digest},
    simulator::AccountSettings,
};

/// Numbers that look random (splitmix64), the same for a seed.
pub(super) struct Dice(u64);

impl Dice {
    /// Each who draws has its own.
    pub(super) fn of(seed: u64, who: usize) -> Self {
        Self(seed.wrapping_add((who as u64).wrapping_mul(0xd134_2543_de82_ef95)))
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % most as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

/// Names of accounts in the configuration.
pub(super) const NAMES: usize = 5;
/// Accounts that there are: there is always one that has no name.
pub(super) const ACCOUNTS: usize = NAMES + 1;
pub(super) const STREAMS: usize = 4;
pub(super) const CALLERS: usize = 50;

/// What a configuration says of accounts and callers.
#[derive(Clone)]
pub(super) struct Plan {
    /// The account of each name. The last one has none.
    named: [usize; ACCOUNTS],
    /// Names that are not configured.
    away: [bool; NAMES],
    callers: Vec<Caller>,
}

#[derive(Clone)]
struct Caller {
    is_there: bool,
    /// By name: it may read the account that has it.
    accounts: [bool; NAMES],
    streams: Option<[bool; STREAMS]>,
    /// The keys that are good; one, or two while it is rotated.
    keys: Range<u64>,
}

/// What a caller asks for.
pub(super) struct Asked {
    pub(super) caller: usize,
    pub(super) key: u64,
    pub(super) account: usize,
    pub(super) stream: usize,
}

/// What it is to be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Due {
    Unauthorized,
    Forbidden,
    /// The contacts, or why they cannot be had now.
    Contacts,
}

/// A key, of which only the caller and its number are known.
pub(super) fn key(caller: usize, number: u64) -> String {
    format!("caller-{caller}-key-{number}")
}

impl Caller {
    /// One of one to three accounts, of each all streams or some.
    fn draw(dice: &mut Dice) -> Self {
        let mut caller = Self {
            is_there: true,
            accounts: [false; NAMES],
            streams: dice.one_in(2).then_some([false; STREAMS]),
            keys: 1..2,
        };
        for _ in 0..=dice.below(3) {
            caller.accounts[dice.below(NAMES)] = true;
        }
        if let Some(streams) = &mut caller.streams {
            for _ in 0..=dice.below(2) {
                streams[dice.below(STREAMS)] = true;
            }
        }
        caller
    }

    fn change(&mut self, dice: &mut Dice) {
        match dice.below(4) {
            0 => self.is_there = !dice.one_in(6),
            1 => {
                let (is_there, keys) = (self.is_there, self.keys.clone());
                *self = Self {
                    is_there,
                    keys,
                    ..Self::draw(dice)
                };
            }
            _ if self.keys.end - self.keys.start == 1 => self.keys.end += 1,
            _ => self.keys.start += 1,
        }
    }
}

impl Plan {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        Self {
            named: std::array::from_fn(|number| number),
            away: [false; NAMES],
            callers: (0..CALLERS).map(|_| Caller::draw(dice)).collect(),
        }
    }

    /// The next one: some callers come, go, may read something else or have other keys; and every other time a name changes
    /// hands, or is there no more, or again.
    pub(super) fn next(&self, dice: &mut Dice) -> Self {
        let mut plan = self.clone();
        for caller in &mut plan.callers {
            if dice.one_in(8) {
                caller.change(dice);
            }
        }
        match dice.below(4) {
            0 => plan.named.swap(dice.below(ACCOUNTS), dice.below(ACCOUNTS)),
            // One always stays, since a configuration without any account or caller is refused.
            1 => plan.away[1 + dice.below(NAMES - 1)] = dice.one_in(3),
            _ => {}
        }
        plan
    }

    /// A key that a caller shows: mostly a good one, else one that no longer is, or not yet.
    pub(super) fn shown(&self, caller: usize, dice: &mut Dice) -> u64 {
        let keys = &self.callers[caller].keys;
        match dice.below(12) {
            0 => keys.start - 1,
            1 => keys.end,
            2..6 => keys.start,
            _ => keys.end - 1,
        }
    }

    /// An account that a caller asks for: mostly one that it may read something of.
    pub(super) fn wanted(&self, caller: usize, dice: &mut Dice) -> usize {
        let (any, own) = (dice.below(ACCOUNTS), dice.below(4));
        let own = self.read_by(&self.callers[caller]).nth(own);
        own.map_or(any, |name| self.named[name])
    }

    pub(super) fn due(&self, asked: &Asked) -> Due {
        let caller = &self.callers[asked.caller];
        let admits = |streams: [bool; STREAMS]| streams[asked.stream];
        if !self.has(caller) || !caller.keys.contains(&asked.key) {
            Due::Unauthorized
        } else if self
            .read_by(caller)
            .any(|name| self.named[name] == asked.account)
            && caller.streams.is_none_or(admits)
        {
            Due::Contacts
        } else {
            Due::Forbidden
        }
    }

    /// A configuration that says so.
    pub(super) fn configured(&self, base: &Config, accounts: &[AccountSettings]) -> Config {
        let mut config = base.clone();
        for (account, own) in config.accounts.iter_mut().zip(self.named) {
            account.account_id.clone_from(&accounts[own].account_id);
            account.client_id.clone_from(&accounts[own].client_id);
        }
        let mut away = self.away.into_iter();
        config.accounts.retain(|_| away.next() == Some(false));
        let callers = self.callers.iter().enumerate();
        let there = callers.filter(|(_, caller)| self.has(caller));
        config.callers = there
            .map(|(number, caller)| self.caller(number, caller))
            .collect();
        config
    }

    fn caller(&self, number: usize, caller: &Caller) -> caller::Config {
        let digest = |number_of_key| Digest::of(&key(number, number_of_key)).to_string();
        let stream = |stream: &usize| caller.streams.is_some_and(|streams| streams[*stream]);
        let account = |name| format!("account-{name}");
        let streams = (0..STREAMS).filter(stream);
        let streams: Vec<_> = streams.map(|stream| format!("st-{stream}")).collect();
        caller::Config {
            name: format!("caller-{number}"),
            key_sha256: caller.keys.clone().map(digest).collect(),
            accounts: self.read_by(caller).map(account).collect(),
            streams: caller.streams.map(|_| streams),
            requests_per_minute: 6_000_000,
            requests_at_once: 1_000_000,
            ..caller::Config::default()
        }
    }

    /// Whether the caller is configured. One of accounts that are away cannot be.
    fn has(&self, caller: &Caller) -> bool {
        caller.is_there && self.read_by(caller).next().is_some()
    }

    fn read_by(&self, caller: &Caller) -> impl Iterator<Item = usize> {
        let may = caller.accounts;
        (0..NAMES).filter(move |name| may[*name] && !self.away[*name])
    }
}

/// A plan, and the one after it once its reload has begun. Gone when nobody looks at it any more.
pub(super) struct Round {
    pub(super) plan: Plan,
    next: OnceCell<Rc<Round>>,
}

impl Round {
    fn of(plan: Plan) -> Rc<Self> {
        Rc::new(Self {
            plan,
            next: OnceCell::new(),
        })
    }

    /// What may have been in force at any time since.
    pub(super) fn since(&self) -> impl Iterator<Item = &Plan> {
        iter::successors(Some(self), |round| round.next.get().map(|next| &**next))
            .map(|round| &round.plan)
    }
}

/// What is in force: the plan whose reload has ended last; and after it the one whose reload is running, if one is.
pub(super) struct History(RefCell<Rc<Round>>);

impl History {
    pub(super) fn of(plan: Plan) -> Self {
        Self(RefCell::new(Round::of(plan)))
    }

    pub(super) fn now(&self) -> Rc<Round> {
        self.0.borrow().clone()
    }

    /// From here on either may be in force.
    pub(super) fn begins(&self, plan: Plan) {
        assert!(
            self.now().next.set(Round::of(plan)).is_ok(),
            "one at a time"
        );
    }

    /// From here on only the new one is.
    pub(super) fn ended(&self) {
        let next = self.now().next.get().cloned();
        *self.0.borrow_mut() = next.expect("a reload has begun");
    }
}
