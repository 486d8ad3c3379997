"""What is not there, or is another tenant's: the same 404 for both. Knows names, no row."""

from api.errors import ApiError


def file(file_id: str, param: str | None = "id") -> ApiError:
    return ApiError(404, f"No such File object: {file_id}", param=param, code="file_not_found")


def upload(upload_id: str) -> ApiError:
    return ApiError(404, f"No such Upload object: {upload_id}", param="upload_id", code="upload_not_found")


def job(job_id: str) -> ApiError:
    return ApiError(404, f"Could not find fine tune: {job_id}", param="fine_tune_id", code="fine_tune_not_found")


def model(name: str) -> ApiError:
    return ApiError(404, f"The model '{name}' does not exist.", param="model", code="model_not_found")


def profile(sha256: str) -> ApiError:
    return ApiError(404, f"There is no profile {sha256[:64]}.", param="sha256", code="profile_not_found")


def deleted_model(name: str, param: str) -> ApiError:
    return ApiError(404, f"The model '{name}' was deleted.", param=param, code="model_not_found")
