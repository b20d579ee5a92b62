//! How often one address may call without a valid token: GCRA (the generic cell rate
//! algorithm), which needs one instant per address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::Error;

/// How many addresses are remembered; beyond that those go that could call at once anyway.
const REMEMBERED: usize = 100_000;

/// So many requests in so much time, for the paths of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A path, or the beginning of one and `*`.
    pub pattern: String,
    /// `None` exempts.
    pub quota: Option<Quota>,
}

/// So many requests in so much time; all of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many, at least one.
    pub limit: u32,
    /// In which time.
    pub window: Duration,
}

/// The rules, and when each address called.
#[derive(Debug)]
pub struct Limiter {
    /// The longest pattern first.
    rules: Vec<Rule>,
    /// By rule and address: when all that was admitted would have been due.
    due: Mutex<HashMap<(usize, IpAddr), Instant>>,
}

/// A request was admitted, and this is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The rule's pattern.
    pub rule: String,
    /// What it allows.
    pub quota: Quota,
    /// How many more would be admitted now.
    pub remaining: u32,
    /// When all of them are back.
    pub reset: Duration,
}

// === impl Rule ===

/// `pattern=count/window`, as in `/v1/*=100/15m`, or `pattern=off`.
impl std::str::FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rule such as /v1/*=100/15m or /v1/hooks/*=off");
        let (pattern, quota) = text.rsplit_once('=').ok_or_else(wrong)?;
        if !pattern.starts_with('/') {
            return Err(wrong());
        }
        let quota = if quota == "off" {
            None
        } else {
            let (limit, window) = quota.split_once('/').ok_or_else(wrong)?;
            let limit = limit.parse().ok().filter(|limit| *limit > 0).ok_or_else(wrong)?;
            let window = mesh::config::duration(window)?;
            if window.is_zero() {
                return Err(wrong());
            }
            Some(Quota { limit, window })
        };
        Ok(Self { pattern: pattern.to_owned(), quota })
    }
}

impl Rule {
    fn fits(&self, path: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == self.pattern,
        }
    }
}

// === impl Quota ===

impl Quota {
    fn interval(self) -> Duration {
        self.window / self.limit
    }
}

// === impl Limiter ===

impl Limiter {
    /// A limiter; of two rules for one path the longer pattern counts, of equal ones the last.
    #[must_use]
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.reverse();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.pattern.len()));
        Self { rules, due: Mutex::default() }
    }

    /// Counts a request; `None` if no rule is for its path.
    ///
    /// # Errors
    /// [`Error::RateLimited`] says when the next one is admitted. It is not counted itself.
    pub fn admit(
        &self,
        path: &str,
        client: IpAddr,
        at: Instant,
    ) -> Result<Option<Admitted>, Error> {
        let Some(index) = self.rules.iter().position(|rule| rule.fits(path)) else {
            return Ok(None);
        };
        let rule = &self.rules[index];
        let Some(quota) = rule.quota else { return Ok(None) };
        let client = counted(client);
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut due, at);
        let next = due.get(&(index, client)).copied().unwrap_or(at).max(at) + quota.interval();
        let ahead = next.duration_since(at);
        if ahead > quota.window {
            return Err(Error::RateLimited {
                rule: rule.pattern.clone(),
                limit: quota.limit,
                window: quota.window,
                retry_after: ahead.saturating_sub(quota.window),
                subject: format!("ip:{client}"),
            });
        }
        due.insert((index, client), next);
        let left =
            quota.window.saturating_sub(ahead).as_nanos() / quota.interval().as_nanos().max(1);
        let remaining = u32::try_from(left).unwrap_or(u32::MAX);
        Ok(Some(Admitted { rule: rule.pattern.clone(), quota, remaining, reset: ahead }))
    }
}

/// Forgets whoever could call as often as a stranger; if that is not enough, whoever is next.
fn make_room(due: &mut HashMap<(usize, IpAddr), Instant>, at: Instant) {
    if due.len() < REMEMBERED {
        return;
    }
    due.retain(|_, next| *next > at);
    if due.len() >= REMEMBERED {
        let mut times: Vec<Instant> = due.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        due.retain(|_, next| *next > median);
    }
}

/// Who is one client: of IPv6, one has a whole /64 to itself.
pub(crate) fn counted(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(rules: &[&str]) -> Limiter {
        Limiter::new(rules.iter().map(|rule| rule.parse().expect(rule)).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn a_hundred_may_come_at_once_and_then_one_every_nine_seconds() {
        let limiter = limiter(&["/v1/*=100/15m"]);
        let (client, at) = (ip("1.2.3.4"), mesh::clock::instant());
        for left in (0..100).rev() {
            let admitted = limiter.admit("/v1/x", client, at).expect("admitted").expect("a rule");
            assert_eq!(admitted.remaining, left);
        }
        let Err(Error::RateLimited { retry_after, limit, .. }) = limiter.admit("/v1/x", client, at)
        else {
            panic!("the 101st is admitted");
        };
        assert_eq!((retry_after, limit), (9 * SECOND, 100));
        assert!(limiter.admit("/v1/x", client, at + 8 * SECOND).is_err());
        assert!(limiter.admit("/v1/x", client, at + 9 * SECOND).is_ok());
        assert!(limiter.admit("/v1/x", client, at + 17 * SECOND).is_err());
        assert!(limiter.admit("/v1/x", client, at + 18 * SECOND).is_ok());
        // Others are not touched, and a full window later neither is this one.
        assert!(limiter.admit("/v1/x", ip("1.2.3.5"), at).is_ok());
        let later = at + 1_000 * SECOND;
        let admitted = limiter.admit("/v1/x", client, later).expect("admitted").expect("a rule");
        assert_eq!(admitted.remaining, 99);
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let limiter = limiter(&["/v1/*=1/1m"]);
        let at = mesh::clock::instant();
        assert!(limiter.admit("/v1/x", ip("2001:db8::1"), at).is_ok());
        assert!(limiter.admit("/v1/x", ip("2001:db8::ffff:1"), at).is_err());
        assert!(limiter.admit("/v1/x", ip("2001:db8:0:1::1"), at).is_ok());
        assert!(limiter.admit("/v1/x", ip("::ffff:1.2.3.4"), at).is_ok());
        assert!(limiter.admit("/v1/x", ip("1.2.3.4"), at).is_err());
    }

    #[test]
    fn the_longest_pattern_counts_with_a_count_of_its_own() {
        let limiter = limiter(&["/v1/*=2/1m", "/v1/keys:*=1/1m", "/v1/hooks/*=off", "/v1/*=3/1m"]);
        let (client, at) = (ip("1.2.3.4"), mesh::clock::instant());
        let rule = |path| limiter.admit(path, client, at).map(|a| a.map(|a| (a.rule, a.remaining)));
        assert_eq!(rule("/v1/keys:issue"), Ok(Some(("/v1/keys:*".to_owned(), 0))));
        assert!(rule("/v1/keys:refresh").is_err());
        assert_eq!(rule("/v1/x"), Ok(Some(("/v1/*".to_owned(), 2))));
        assert_eq!(rule("/v1/hooks/a"), Ok(None));
        assert_eq!(rule("/other"), Ok(None));
    }

    #[test]
    fn a_rule_is_a_pattern_with_a_count_and_a_time() {
        for wrong in
            ["", "/v1", "/v1=", "/v1=5", "/v1=0/1m", "/v1=5/0s", "v1=5/1m", "/v1=x/1m", "/v1=5/1"]
        {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_number_of_addresses_fills_the_memory() {
        let limiter = limiter(&["/*=5/1m"]);
        let at = mesh::clock::instant();
        for n in 0..u32::try_from(REMEMBERED * 2).expect("small") {
            assert!(limiter.admit("/", IpAddr::from(n.to_be_bytes()), at).is_ok());
        }
        assert!(limiter.due.lock().expect("no panic").len() <= REMEMBERED);
    }
}
