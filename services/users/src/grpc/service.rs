//! The generated trait: reads the clock once, hands over, wraps.

use mesh::clock;
use proto::users::v1::{self as api, users_service_server::UsersService};
use tonic::{Request, Response, Status};

use super::{Target, Users, decode};
use crate::domain::User;

#[tonic::async_trait]
impl UsersService for Users {
    async fn create_user(
        &self,
        request: Request<api::CreateUserRequest>,
    ) -> Result<Response<api::User>, Status> {
        Ok(Response::new(self.create(request.into_inner(), clock::now()).await?))
    }

    async fn get_user(
        &self,
        request: Request<api::GetUserRequest>,
    ) -> Result<Response<api::User>, Status> {
        Ok(Response::new(self.get(&request.get_ref().name).await?))
    }

    async fn list_users(
        &self,
        request: Request<api::ListUsersRequest>,
    ) -> Result<Response<api::ListUsersResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref()).await?))
    }

    async fn update_user(
        &self,
        request: Request<api::UpdateUserRequest>,
    ) -> Result<Response<api::User>, Status> {
        Ok(Response::new(self.update(request.into_inner(), clock::now()).await?))
    }

    async fn delete_user(
        &self,
        request: Request<api::DeleteUserRequest>,
    ) -> Result<Response<api::User>, Status> {
        let api::DeleteUserRequest { name, etag, request_id } = request.get_ref();
        let target = Target { name, etag, request_id, etag_needed: false };
        let bare =
            api::DeleteUserRequest { request_id: String::new(), ..request.get_ref().clone() };
        let at = clock::now();
        let user = self.turn("DeleteUser", target, bare, at, |user| user.delete(at)).await?;
        Ok(Response::new(user))
    }

    async fn undelete_user(
        &self,
        request: Request<api::UndeleteUserRequest>,
    ) -> Result<Response<api::User>, Status> {
        let api::UndeleteUserRequest { name, etag, request_id } = request.get_ref();
        let target = Target { name, etag, request_id, etag_needed: false };
        let bare =
            api::UndeleteUserRequest { request_id: String::new(), ..request.get_ref().clone() };
        let at = clock::now();
        let user = self.turn("UndeleteUser", target, bare, at, |user| user.undelete(at)).await?;
        Ok(Response::new(user))
    }

    async fn disable_user(
        &self,
        request: Request<api::DisableUserRequest>,
    ) -> Result<Response<api::User>, Status> {
        let api::DisableUserRequest { name, etag, request_id } = request.get_ref();
        let target = Target { name, etag, request_id, etag_needed: false };
        let bare =
            api::DisableUserRequest { request_id: String::new(), ..request.get_ref().clone() };
        let at = clock::now();
        let user = self.turn("DisableUser", target, bare, at, |user| user.disable(at)).await?;
        Ok(Response::new(user))
    }

    async fn enable_user(
        &self,
        request: Request<api::EnableUserRequest>,
    ) -> Result<Response<api::User>, Status> {
        let api::EnableUserRequest { name, etag, request_id } = request.get_ref();
        let target = Target { name, etag, request_id, etag_needed: false };
        let bare =
            api::EnableUserRequest { request_id: String::new(), ..request.get_ref().clone() };
        let at = clock::now();
        let user = self.turn("EnableUser", target, bare, at, |user| user.enable(at)).await?;
        Ok(Response::new(user))
    }

    async fn set_roles(
        &self,
        request: Request<api::SetRolesRequest>,
    ) -> Result<Response<api::User>, Status> {
        let api::SetRolesRequest { name, roles, etag, request_id } = request.get_ref();
        let roles = decode::roles(roles)?;
        let target = Target { name, etag, request_id, etag_needed: true };
        let bare = api::SetRolesRequest { request_id: String::new(), ..request.get_ref().clone() };
        let at = clock::now();
        let decide = |user: &mut User| user.set_roles(roles.clone(), at);
        let user = self.turn("SetRoles", target, bare, at, decide).await?;
        Ok(Response::new(user))
    }

    async fn check_customer(
        &self,
        request: Request<api::CheckCustomerRequest>,
    ) -> Result<Response<api::CheckCustomerResponse>, Status> {
        Ok(Response::new(self.check(&request.get_ref().name).await?))
    }
}
