//! What `catalog` is asked.

use serde_json::{Value, json};

use super::stage::{Case, Stage, name};
use crate::lives::euros;

fn catalog(rpc: &str) -> String {
    format!("ordermesh.catalog.v1.CatalogService.{rpc}")
}

impl Stage {
    /// A variant at 9.99 euros.
    pub async fn made(&self) -> Value {
        let request = self.variant_to_be().await;
        self.as_admin(&catalog("CreateVariant"), &request).await
    }

    pub async fn catalog_case(&self, rpc: &str) -> Option<Case> {
        let request = match rpc {
            "CreateProduct" => json!({"product": {"title": "Mug"}}),
            "GetProduct" | "DeleteProduct" => json!({"name": self.product().await["name"]}),
            "UndeleteProduct" => {
                let product = json!({"name": self.product().await["name"]});
                self.as_admin(&catalog("DeleteProduct"), &product).await;
                product
            }
            "UpdateProduct" => {
                let product = self.product().await;
                let product =
                    json!({"name": product["name"], "title": "Cup", "etag": product["etag"]});
                json!({"product": product, "updateMask": "title"})
            }
            "CreateVariant" => self.variant_to_be().await,
            "GetVariant" => json!({"name": self.variant}),
            "BatchGetVariants" => json!({"names": [self.variant]}),
            "UpdateVariant" => {
                let variant = self.made().await;
                let variant =
                    json!({"name": variant["name"], "title": "Red", "etag": variant["etag"]});
                json!({"variant": variant, "updateMask": "title"})
            }
            "SetPrice" => {
                let variant = self.made().await;
                let (name, etag) = (&variant["name"], &variant["etag"]);
                json!({"name": name, "price": euros((8, 99)), "etag": etag})
            }
            "GetPrice" => {
                let version = self.made().await["priceVersion"].clone();
                json!({"name": format!("prices/{}", version.as_str().expect("an id"))})
            }
            "ListProducts" | "ListVariants" | "ListPrices" => json!({}),
            _ => return None,
        };
        Some(self.anyones(request))
    }

    async fn product(&self) -> Value {
        self.as_admin(&catalog("CreateProduct"), &json!({"product": {"title": "Mug"}})).await
    }

    async fn variant_to_be(&self) -> Value {
        let product = name(&self.product().await);
        let variant = json!({"product": product, "title": "Blue", "price": euros((9, 99))});
        json!({"variant": variant, "variantId": self.fresh("SKU-")})
    }
}
