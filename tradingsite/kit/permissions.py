"""Permissions of the API."""

from rest_framework.permissions import DjangoModelPermissions


class ViewPermissionRequired(DjangoModelPermissions):
    """Reading needs the model's view permission too."""

    perms_map = {**DjangoModelPermissions.perms_map, "GET": ["%(app_label)s.view_%(model_name)s"]}
