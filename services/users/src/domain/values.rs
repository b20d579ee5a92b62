//! The values that accounts are made of: what is held in one of these types is within its limits.

use std::{collections::BTreeSet, fmt};

/// The longest name, in characters.
pub const DISPLAY_NAME_MAX: usize = 100;
/// The longest e-mail address (RFC 5321, without the angle brackets).
pub const EMAIL_MAX: usize = 254;
/// The shortest password, in characters.
pub const PASSWORD_MIN: usize = 12;
/// The longest password, in characters.
pub const PASSWORD_MAX: usize = 200;

/// What a person is called: 1 to 100 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayName(String);

/// An e-mail address, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

/// A password on its way to be hashed or checked. Never shown, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// What a password is checked against, in the PHC string format.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything.
    Admin,
    /// Events of their shipments.
    Courier,
    /// What is theirs.
    Customer,
    /// Any refund, and to reconcile.
    Finance,
    /// To read all, and to act on behalf of customers.
    Support,
    /// Stock, shipping, returns.
    Warehouse,
}

/// One role or more, each once, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

/// What is wrong with a value; reads on from "the field …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing was given.
    #[error("must not be empty")]
    Missing,
    /// Fewer characters than allowed.
    #[error("must have at least {0} characters")]
    TooShort(usize),
    /// More characters than allowed.
    #[error("must have at most {0} characters")]
    TooLong(usize),
    /// A control character, such as a line feed.
    #[error("must not contain control characters")]
    ControlCharacter,
    /// Not `local@domain`.
    #[error("must be an e-mail address such as ada@example.com")]
    NotAnEmail,
    /// Not the name of a role.
    #[error("must be one of customer, support, warehouse, courier, finance and admin, not {0:?}")]
    UnknownRole(String),
    /// The same role twice.
    #[error("must not name {} twice", .0.as_str())]
    RoleTwice(Role),
}

// === impl DisplayName ===

impl DisplayName {
    /// Reads a name, without the white space around it.
    ///
    /// # Errors
    /// Empty, too long, or with control characters.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Problem::Missing);
        }
        if text.chars().any(char::is_control) {
            return Err(Problem::ControlCharacter);
        }
        if text.chars().count() > DISPLAY_NAME_MAX {
            return Err(Problem::TooLong(DISPLAY_NAME_MAX));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Email ===

impl Email {
    /// Reads an address: ASCII, a dot-atom before the `@` and a host name with a dot after it.
    ///
    /// # Errors
    /// Empty, too long, or not of that form.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::Missing);
        }
        if text.len() > EMAIL_MAX {
            return Err(Problem::TooLong(EMAIL_MAX));
        }
        let (local, domain) = text.split_once('@').ok_or(Problem::NotAnEmail)?;
        if is_local(local) && is_host(domain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Problem::NotAnEmail)
        }
    }

    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two addresses have in common that differ in case alone.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// A dot-atom of RFC 5322, at most 64 characters.
fn is_local(text: &str) -> bool {
    let atom = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&c);
    text.len() <= 64 && text.split('.').all(|part| !part.is_empty() && part.bytes().all(atom))
}

/// A host name of two labels or more.
fn is_host(text: &str) -> bool {
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    text.contains('.') && text.split('.').all(label)
}

// === impl Password ===

impl Password {
    /// Reads a new password.
    ///
    /// # Errors
    /// Empty, too short or too long.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::Missing);
        }
        let length = text.chars().count();
        if length < PASSWORD_MIN {
            return Err(Problem::TooShort(PASSWORD_MIN));
        }
        if length > PASSWORD_MAX {
            return Err(Problem::TooLong(PASSWORD_MAX));
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads what somebody signs in with. A short one is a wrong one, not a malformed one: the
    /// shortest may have changed since it was set.
    ///
    /// # Errors
    /// Empty or too long.
    pub fn offered(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::Missing);
        }
        if text.chars().count() > PASSWORD_MAX {
            return Err(Problem::TooLong(PASSWORD_MAX));
        }
        Ok(Self(text.to_owned()))
    }

    /// What is to be hashed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

// === impl PasswordHash ===

impl PasswordHash {
    /// Takes over what was made by the hash function.
    #[must_use]
    pub fn new(phc: String) -> Self {
        Self(phc)
    }

    /// The PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

// === impl Role ===

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Courier, Self::Customer, Self::Finance, Self::Support, Self::Warehouse];

    /// As it stands in tokens and rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Courier => "courier",
            Self::Customer => "customer",
            Self::Finance => "finance",
            Self::Support => "support",
            Self::Warehouse => "warehouse",
        }
    }

    /// Reads what [`Role::as_str`] wrote.
    ///
    /// # Errors
    /// [`Problem::UnknownRole`].
    pub fn parse(text: &str) -> Result<Self, Problem> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| Problem::UnknownRole(text.chars().take(40).collect()))
    }
}

// === impl Roles ===

impl Roles {
    /// One role.
    #[must_use]
    pub fn of(role: Role) -> Self {
        Self(BTreeSet::from([role]))
    }

    /// Reads names of roles, in any order.
    ///
    /// # Errors
    /// None at all, an unknown one, or one twice.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Problem> {
        let mut roles = BTreeSet::new();
        for name in names {
            let role = Role::parse(name)?;
            if !roles.insert(role) {
                return Err(Problem::RoleTwice(role));
            }
        }
        if roles.is_empty() { Err(Problem::Missing) } else { Ok(Self(roles)) }
    }

    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|role| role.as_str().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_email_is_a_dot_atom_at_a_host_with_a_dot() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long_label = format!("ada@{}.com", "a".repeat(64));
        let too_long = format!("ada@{}com", "example.".repeat(40));
        for (text, expected) in [
            ("ada@example.com", None),
            ("Ada.Lovelace+orders@mail.example.co.uk", None),
            ("o'brien@example.ie", None),
            ("", Some(Problem::Missing)),
            ("ada", Some(Problem::NotAnEmail)),
            ("@example.com", Some(Problem::NotAnEmail)),
            ("ada@", Some(Problem::NotAnEmail)),
            ("ada@example", Some(Problem::NotAnEmail)),
            ("ada@@example.com", Some(Problem::NotAnEmail)),
            ("ada@b@example.com", Some(Problem::NotAnEmail)),
            (".ada@example.com", Some(Problem::NotAnEmail)),
            ("ada.@example.com", Some(Problem::NotAnEmail)),
            ("a..b@example.com", Some(Problem::NotAnEmail)),
            ("a b@example.com", Some(Problem::NotAnEmail)),
            ("ada@-example.com", Some(Problem::NotAnEmail)),
            ("ada@example-.com", Some(Problem::NotAnEmail)),
            ("ada@example..com", Some(Problem::NotAnEmail)),
            ("ada@example.com.", Some(Problem::NotAnEmail)),
            ("ada@example.com\r\nBcc: x@example.com", Some(Problem::NotAnEmail)),
            ("ädä@example.com", Some(Problem::NotAnEmail)),
            (&long_local, Some(Problem::NotAnEmail)),
            (&long_label, Some(Problem::NotAnEmail)),
            (&too_long, Some(Problem::TooLong(EMAIL_MAX))),
        ] {
            assert_eq!(Email::parse(text).err(), expected, "{text}");
        }
    }

    #[test]
    fn addresses_that_differ_in_case_alone_share_a_key_and_keep_their_spelling() {
        let email = Email::parse("Ada@Example.COM").expect("an address");
        assert_eq!(email.key(), "ada@example.com");
        assert_eq!(email.as_str(), "Ada@Example.COM");
    }

    #[test]
    fn a_name_has_one_to_a_hundred_characters_besides_white_space_around_it() {
        let longest = "ä".repeat(DISPLAY_NAME_MAX);
        let longer = "ä".repeat(DISPLAY_NAME_MAX + 1);
        for (text, expected) in [
            ("Ada", Ok("Ada")),
            ("  Ada Lovelace\t", Ok("Ada Lovelace")),
            (longest.as_str(), Ok(longest.as_str())),
            (longer.as_str(), Err(Problem::TooLong(DISPLAY_NAME_MAX))),
            ("", Err(Problem::Missing)),
            (" \u{a0} ", Err(Problem::Missing)),
            ("Ada\u{0}", Err(Problem::ControlCharacter)),
            ("Ada\nLovelace", Err(Problem::ControlCharacter)),
        ] {
            let parsed = DisplayName::parse(text);
            assert_eq!(parsed.as_ref().map(DisplayName::as_str), expected.as_ref().copied());
        }
    }

    #[test]
    fn a_password_has_twelve_to_two_hundred_characters() {
        for (length, expected) in [
            (0, Some(Problem::Missing)),
            (11, Some(Problem::TooShort(12))),
            (12, None),
            (200, None),
            (201, Some(Problem::TooLong(200))),
        ] {
            assert_eq!(Password::parse(&"ß".repeat(length)).err(), expected, "{length}");
        }
        assert_eq!(Password::offered("short").err(), None);
        assert_eq!(Password::offered("").err(), Some(Problem::Missing));
    }

    #[test]
    fn neither_a_password_nor_its_hash_is_shown_by_debug() {
        let password = Password::parse("correct horse battery").expect("a password");
        assert!(!format!("{password:?}").contains("horse"));
        assert!(!format!("{:?}", PasswordHash::new("$argon2id$x".to_owned())).contains("argon"));
    }

    #[test]
    fn roles_are_known_named_once_and_told_in_order() {
        let roles = Roles::parse(["support", "customer"]).expect("roles");
        assert_eq!(roles.names(), ["customer", "support"]);
        for (names, expected) in [
            (vec![], Problem::Missing),
            (vec!["customer", "customer"], Problem::RoleTwice(Role::Customer)),
            (vec!["root"], Problem::UnknownRole("root".to_owned())),
            (vec!["Admin"], Problem::UnknownRole("Admin".to_owned())),
            (vec!["service:orders"], Problem::UnknownRole("service:orders".to_owned())),
        ] {
            assert_eq!(Roles::parse(names).err(), Some(expected));
        }
    }

    #[test]
    fn the_order_of_roles_is_the_order_of_their_names() {
        let names = Role::ALL.map(Role::as_str);
        assert!(names.is_sorted(), "{names:?}");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let name = DisplayName::parse(&text);
            prop_assert!(name.is_err() || !text.trim().is_empty());
            if let Ok(email) = Email::parse(&text) {
                prop_assert!(email.as_str().is_ascii());
            }
        }
    }
}
