// Shows the OpenAPI document beside this page. Nothing is asked of any other host.

"use strict";

const darkness = window.matchMedia("(prefers-color-scheme: dark)");
const followDarkness = () => document.documentElement.classList.toggle("dark-mode", darkness.matches);
darkness.addEventListener("change", followDarkness);
followDarkness();

// Whoever pastes a whole header's value has written the scheme already.
const withOneScheme = (request) => {
  const { Authorization: token } = request.headers;
  if (token) request.headers.Authorization = token.replace(/^Bearer\s+(?:Bearer\s+)?/i, "Bearer ").trim();
  return request;
};

SwaggerUIBundle({
  url: "openapi.yaml",
  dom_id: "#api",
  deepLinking: true,
  displayOperationId: true,
  displayRequestDuration: true,
  // The calls first; the messages they are made of are a list of names below.
  defaultModelsExpandDepth: 0,
  defaultModelExpandDepth: 2,
  validatorUrl: null,
  persistAuthorization: false,
  requestInterceptor: withOneScheme,
});
