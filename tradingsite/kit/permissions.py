"""Permissions of the API."""

from rest_framework.permissions import DjangoModelPermissions


class ViewPermissionRequired(DjangoModelPermissions):
    """Reading needs the model's view permission too, in whichever way it is asked for."""

    perms_map = {
        **DjangoModelPermissions.perms_map,
        **{method: ["%(app_label)s.view_%(model_name)s"] for method in ("GET", "HEAD", "OPTIONS")},
    }
