"""Permissions of the API."""

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission, DjangoModelPermissions
from rest_framework.request import Request

if TYPE_CHECKING:
    from rest_framework.views import APIView  # which imports this module


class AnyPermissionRequired(BasePermission):
    """For what is about the whole API: users who may do anything at all."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        return bool(request.user.get_all_permissions())


def needs(*permissions: str) -> type[BasePermission]:
    """For what is done or seen with permissions of these names, written app.name."""

    class Needs(BasePermission):
        def has_permission(self, request: Request, view: "APIView") -> bool:
            return request.user.has_perms(permissions)

    return Needs


class ViewPermissionRequired(DjangoModelPermissions):
    """Reading needs the model's view permission too, in whichever way it is asked for."""

    perms_map = {
        **DjangoModelPermissions.perms_map,
        **{method: ["%(app_label)s.view_%(model_name)s"] for method in ("GET", "HEAD", "OPTIONS")},
    }
