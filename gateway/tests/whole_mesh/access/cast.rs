//! Everybody who may call: nobody, customers, every role, every service.

use std::fmt;

use mesh::auth::Caller;
use serde_json::json;

use super::stage::{Case, Stage};
use crate::bed::SERVICES;

/// The roles of the staff.
const STAFF: [&str; 5] = ["support", "warehouse", "courier", "finance", "admin"];

/// Somebody who calls.
#[derive(Debug)]
pub struct Actor {
    /// What kind of caller it is: `nobody`, `forger`, `owner`, `other`, or what role or service.
    pub label: &'static str,
    /// Who the token says it is; `None` where it says nothing.
    pub caller: Option<Caller>,
    /// None for nobody, and for the owner of each case.
    token: Option<String>,
}

/// A customer, signed in.
#[derive(Clone, Debug)]
pub struct Customer {
    /// `users/{uuid}`.
    pub name: String,
    pub email: String,
    pub token: String,
}

// === impl Actor ===

impl Actor {
    pub fn token<'c>(&'c self, case: &'c Case) -> Option<&'c str> {
        match self.label {
            "owner" => Some(&case.owner.token),
            _ => self.token.as_deref(),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)
    }
}

impl Stage {
    /// The owner stands before everybody else who is served.
    pub async fn cast(&self) -> Vec<Actor> {
        let customer = || Some(Caller::customer("users/-"));
        let forged = format!("{}A", self.bob.token);
        let mut cast = vec![
            Actor { label: "nobody", caller: None, token: None },
            Actor { label: "forger", caller: None, token: Some(forged) },
            Actor { label: "owner", caller: customer(), token: None },
            Actor { label: "other", caller: customer(), token: Some(self.bob.token.clone()) },
        ];
        for role in STAFF {
            let token = Some(self.staff(role).await);
            cast.push(Actor {
                label: role,
                caller: Some(Caller::with_roles("users/-", &[role])),
                token,
            });
        }
        for (name, _) in SERVICES {
            let token = Some(self.service(name).await);
            cast.push(Actor { label: name, caller: Some(Caller::of_service(name)), token });
        }
        cast
    }

    /// The token of somebody who has this role and no other.
    async fn staff(&self, role: &str) -> String {
        let user = self.account().await;
        let roles = json!({"name": user["name"], "roles": [role], "etag": user["etag"]});
        self.as_admin("ordermesh.users.v1.UsersService.SetRoles", &roles).await;
        self.sign_in(user["email"].as_str().expect("an address")).await.access
    }

    /// The token of a service.
    pub async fn service(&self, name: &str) -> String {
        let secret = format!("secret-of-{name}-0123456789abcdef");
        let client = json!({"client": {"clientId": name, "clientSecret": secret}});
        self.issued(&client).await.access
    }
}
