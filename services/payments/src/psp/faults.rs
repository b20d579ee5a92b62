//! What goes wrong on purpose: by rules that `/control` sets, and by magic tokens.

use std::time::Duration;

use super::domain::Verdict;

/// One thing that goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out, and answered this late.
    Delay(Duration),
    /// It waits this long before it is carried out.
    DelayBefore(Duration),
    /// It is carried out, and the connection closes without an answer.
    ApplyDrop,
    /// The connection closes, and nothing was done.
    Drop,
    /// It is carried out, and the connection breaks in the middle of the answer.
    Reset,
    /// It is carried out, and answered 500.
    ErrorAfter,
    /// It is answered 500, and nothing was done.
    ErrorBefore,
    /// An authorization is decided like this; a refund can but be declined.
    Verdict(Verdict),
}

/// When a fault strikes. What is not given, matches everything.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What is asked for.
    pub operation: Option<Operation>,
    /// What the customer pays with.
    pub token: Option<String>,
    /// How the merchant's reference begins.
    pub reference_prefix: Option<String>,
    /// How likely, from 0 to 1.
    pub probability: f64,
    /// How often at most.
    pub count: Option<u64>,
    /// What goes wrong.
    pub fault: Fault,
}

/// What the provider is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// To set money aside.
    Authorize,
    /// To take it.
    Capture,
    /// To give it back, not having been taken.
    Void,
    /// To give it back, having been taken.
    Refund,
}

/// The rules in force. The first that matches strikes.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Rule>);

// === impl Table ===

impl Table {
    /// Adds a rule behind the others.
    pub fn add(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    /// Takes all rules away.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether some rule looks at tokens.
    #[must_use]
    pub fn asks_for_token(&self) -> bool {
        self.0.iter().any(|rule| rule.token.is_some())
    }

    /// What goes wrong with a request; `draw` gives a number from 0 to 1 where chance decides.
    pub fn strike(
        &mut self,
        operation: Operation,
        token: Option<&str>,
        reference: &str,
        mut draw: impl FnMut() -> f64,
    ) -> Option<Fault> {
        let rule = self.0.iter_mut().find(|rule| {
            rule.operation.is_none_or(|wanted| wanted == operation)
                && rule.token.as_deref().is_none_or(|wanted| token == Some(wanted))
                && rule.reference_prefix.as_deref().is_none_or(|start| reference.starts_with(start))
                && rule.count != Some(0)
                && (rule.probability >= 1.0 || draw() < rule.probability)
        })?;
        if let Some(count) = &mut rule.count {
            *count -= 1;
        }
        Some(rule.fault.clone())
    }
}

// === impl Fault ===

impl Fault {
    /// Whether it strikes before anything is done.
    #[must_use]
    pub fn is_before(&self) -> bool {
        match self {
            Self::Drop | Self::ErrorBefore | Self::DelayBefore(_) => true,
            Self::Delay(_)
            | Self::ApplyDrop
            | Self::Reset
            | Self::ErrorAfter
            | Self::Verdict(_) => false,
        }
    }

    /// What a token asks to go wrong, the first time that it is seen under a reference.
    #[must_use]
    pub fn of_token(token: &str, slow: Duration) -> Option<Self> {
        Some(match token {
            "tok_slow" => Self::Delay(slow),
            "tok_apply_drop" => Self::ApplyDrop,
            "tok_drop" => Self::Drop,
            "tok_reset" => Self::Reset,
            "tok_500_applied" => Self::ErrorAfter,
            "tok_500" => Self::ErrorBefore,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(fault: Fault) -> Rule {
        Rule {
            operation: None,
            token: None,
            reference_prefix: None,
            probability: 1.0,
            count: None,
            fault,
        }
    }

    fn strike(table: &mut Table, reference: &str) -> Option<Fault> {
        table.strike(Operation::Authorize, Some("tok_visa"), reference, || 0.5)
    }

    #[test]
    fn a_rule_strikes_what_it_names_and_nothing_else() {
        let mut table = Table::default();
        table.add(Rule { operation: Some(Operation::Void), ..rule(Fault::Drop) });
        table.add(Rule { token: Some("tok_other".to_owned()), ..rule(Fault::Drop) });
        table.add(Rule { reference_prefix: Some("pay/2".to_owned()), ..rule(Fault::Reset) });
        table.add(Rule { probability: 0.4, ..rule(Fault::Drop) });
        assert_eq!(strike(&mut table, "pay/1"), None);
        assert_eq!(strike(&mut table, "pay/2/authorize/1"), Some(Fault::Reset));
        table.clear();
        assert_eq!(strike(&mut table, "pay/2/authorize/1"), None);
    }

    #[test]
    fn a_rule_strikes_as_often_as_it_says() {
        let mut table = Table::default();
        table.add(Rule { count: Some(2), ..rule(Fault::Drop) });
        let struck: Vec<bool> = (0..4).map(|_| strike(&mut table, "pay/1").is_some()).collect();
        assert_eq!(struck, [true, true, false, false]);
    }
}
