// Better Auth as a Next.js application has it, with users in memory.
import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";

const [port, secret, jwks] = process.argv.slice(2);
const auth = betterAuth({
    baseURL: `http://localhost:${port}`,
    secret,
    database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
    emailAndPassword: { enabled: true },
    session: { cookieCache: { enabled: true, strategy: "jwt" } },
    plugins: [jwt({ jwks: JSON.parse(jwks) })],
});
createServer(toNodeHandler(auth)).listen(Number(port), "localhost");
