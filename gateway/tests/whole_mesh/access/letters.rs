//! What `notifications` is asked.

use std::time::Duration;

use serde_json::json;

use super::stage::{Case, Reach, Stage, name};

/// How long it may take until a customer is told.
const PATIENCE: Duration = Duration::from_secs(10);

fn notifications(rpc: &str) -> String {
    format!("ordermesh.notifications.v1.NotificationsService.{rpc}")
}

impl Stage {
    pub async fn notification_case(&self, rpc: &str) -> Option<Case> {
        let preferences = self.ada.name.replace("users/", "preferences/");
        let (request, reach) = match rpc {
            "GetNotification" => {
                let name = self.told().await;
                (json!({"name": name}), Reach::Named(name))
            }
            "ListNotifications" => (json!({"pageSize": 1_000}), Reach::Listed(self.told().await)),
            "GetPreferences" => (json!({"name": preferences}), Reach::Named(preferences)),
            "UpdatePreferences" => {
                let muted = json!({"name": preferences, "mutedKinds": ["KIND_ORDER_EXPIRED"]});
                let request = json!({"preferences": muted, "updateMask": "mutedKinds"});
                (request, Reach::Named(preferences))
            }
            _ => return None,
        };
        Some(self.adas(request, reach))
    }

    /// What Ada was told of an order.
    async fn told(&self) -> String {
        let order = self.placed(&self.ada).await;
        let about = json!({"order": order["name"]});
        let told = async {
            loop {
                let list = notifications("ListNotifications");
                let found = self.ok(&list, &self.ada.token, &about).await;
                if let Some(notification) = found["notifications"].get(0) {
                    return name(notification);
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("Ada is told")
    }
}
