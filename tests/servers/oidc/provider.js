// A certified OpenID provider with people in it; its one argument is a JSON file that oidc.py writes.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import Provider from "oidc-provider";

const options = JSON.parse(readFileSync(process.argv[2]));

const provider = new Provider(options.issuer, {
  clients: options.clients,
  jwks: options.jwks,
  cookies: { keys: ["of the tests"] },
  conformIdTokenClaims: false, // claims of the scopes in the ID token, as most providers have it
  claims: {
    openid: ["sub"],
    profile: ["preferred_username"],
    email: ["email", "email_verified"],
    groups: ["groups"],
  },
  scopes: ["openid", "profile", "email", "groups"],
  findAccount: (ctx, id) =>
    options.accounts[id] && { accountId: id, claims: () => ({ sub: id, ...options.accounts[id] }) },
  extraTokenClaims: (ctx, token) => options.accounts[token.accountId],
  features: {
    deviceFlow: { enabled: true },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        audience: resource,
        scope: "enter",
        accessTokenFormat: "jwt",
        accessTokenTTL: options.seconds,
        jwt: { sign: { alg: options.alg } },
      }),
    },
  },
  ttl: { AccessToken: options.seconds, IdToken: options.seconds, DeviceCode: options.device_seconds },
});

// It names no interval, which means 5 s (RFC 8628 section 3.2): too long for a test.
provider.use(async (ctx, next) => {
  await next();
  if (ctx.oidc?.route === "device_authorization" && ctx.status === 200) ctx.body.interval = options.interval;
});

createServer({ key: readFileSync(options.key), cert: readFileSync(options.cert) }, provider.callback()).listen({
  host: "127.0.0.1",
  port: options.port,
  reusePort: true, // oidc.py holds it, so that nobody takes it while the provider is restarted
});
