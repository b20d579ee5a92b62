//! What `users` is asked.

use serde_json::{Value, json};
use tonic::Code;

use super::{
    cast::Customer,
    stage::{Case, Reach, Stage, name},
};
use crate::bed::PASSWORD;

/// The tokens of somebody who signed in.
pub struct Tokens {
    pub access: String,
    refresh: String,
}

fn users(rpc: &str) -> String {
    format!("ordermesh.users.v1.UsersService.{rpc}")
}

impl Stage {
    /// An account that was opened.
    pub async fn account(&self) -> Value {
        self.as_admin(&users("CreateUser"), &self.newcomer()).await
    }

    /// A customer who is signed in.
    pub async fn customer(&self) -> Customer {
        let user = self.account().await;
        let email = user["email"].as_str().expect("an address").to_owned();
        let token = self.sign_in(&email).await.access;
        Customer { name: name(&user), email, token }
    }

    pub async fn sign_in(&self, email: &str) -> Tokens {
        self.issued(&json!({"password": {"email": email, "password": PASSWORD}})).await
    }

    pub async fn issued(&self, credential: &Value) -> Tokens {
        let answer =
            self.call("ordermesh.auth.v1.TokensService.IssueToken", None, credential).await;
        assert_eq!(answer.code, Code::Ok, "{answer:?}");
        let text = |key: &str| answer.body[key].as_str().unwrap_or_default().to_owned();
        Tokens { access: text("accessToken"), refresh: text("refreshToken") }
    }

    pub async fn token_case(&self, rpc: &str) -> Option<Case> {
        let request = match rpc {
            "IssueToken" => json!({"password": {"email": self.ada.email, "password": PASSWORD}}),
            "RefreshToken" | "RevokeToken" => {
                json!({"refreshToken": self.sign_in(&self.ada.email).await.refresh})
            }
            "GetJwks" => json!({}),
            _ => return None,
        };
        Some(self.anyones(request))
    }

    pub async fn user_case(&self, rpc: &str) -> Option<Case> {
        let ada = &self.ada.name;
        let request = match rpc {
            "CreateUser" => self.newcomer(),
            "ListUsers" => json!({"pageSize": 1}),
            "CheckCustomer" => json!({"name": ada}),
            "GetUser" => return Some(self.adas(json!({"name": ada}), Reach::Named(ada.clone()))),
            "UpdateUser" => {
                let user = self.as_admin(&users("GetUser"), &json!({"name": ada})).await;
                let display_name = self.fresh("Ada ");
                let user = json!({"name": ada, "displayName": display_name, "etag": user["etag"]});
                let request = json!({"user": user, "updateMask": "displayName"});
                return Some(self.adas(request, Reach::Named(ada.clone())));
            }
            "DeleteUser" => {
                let owner = self.customer().await;
                let reach = Reach::Named(owner.name.clone());
                let request = json!({"name": owner.name});
                return Some(Case { request, reach, owner, command: None });
            }
            "UndeleteUser" => self.account_after("DeleteUser").await,
            "EnableUser" => self.account_after("DisableUser").await,
            "DisableUser" => json!({"name": self.account().await["name"]}),
            "SetRoles" => {
                let user = self.account().await;
                json!({"name": user["name"], "roles": ["customer", "courier"], "etag": user["etag"]})
            }
            _ => return None,
        };
        Some(self.anyones(request))
    }

    fn newcomer(&self) -> Value {
        let email = format!("{}@example.com", self.fresh("person"));
        json!({"user": {"displayName": "Somebody", "email": email, "password": PASSWORD}})
    }

    async fn account_after(&self, rpc: &str) -> Value {
        let name = json!({"name": self.account().await["name"]});
        self.as_admin(&users(rpc), &name).await;
        name
    }
}
