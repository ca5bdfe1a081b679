// The official TypeScript SDK, task by task as in the Go and Java programs, as far as it goes.
import { Dag, DagRegistry, serveDags, type TaskHandlerArgs } from "apache-airflow-ts-sdk";

const dag = new Dag("conformance");

dag.task("success", async () => {
  console.log("a line on stdout");
  console.error("a line on stderr");
  return {
    text: "grüße ✓", integer: 2 ** 53, negative: -5, float: 1.5, flag: true, none: null,
    list: [1, "two", { three: 3 }],
  };
});

dag.task("fail", async () => {
  throw new Error("this task fails");
});

dag.task("crash", async () => {
  process.exit(7);
});

dag.task("exit_zero", async () => {
  process.exit(0);
});

dag.task("connection", async ({ client }: TaskHandlerArgs) => {
  const found = await client.getConnectionOrThrow("conformance_db");
  console.log("stdout leaks", found.password);
  console.error("stderr leaks", found.extra);
  return {
    type: found.type, host: found.host, port: found.port, login: found.login, schema: found.schema,
    password_length: found.password?.length,
  };
});

dag.task("missing_connection", async ({ client }: TaskHandlerArgs) => {
  return (await client.getConnection("no_such_connection")) === null;
});

dag.task("xcom", async ({ client }: TaskHandlerArgs) => {
  const seen = await client.getXCom({ key: "return_value", taskId: "success" });
  await client.setXCom({ key: "a/key with spaces", value: { pushed: true } });
  return { seen, none: (await client.getXCom({ key: "no_such_key", taskId: "success" })) === null };
});

// returns what the task before it has left
dag.task("echo_last", async ({ client }: TaskHandlerArgs) => client.getXCom({ key: "return_value", taskId: "echo_again" }));

const special: Record<string, unknown> = {
  nan: NaN, infinity: [Infinity], text: "cut " + "😀".slice(0, 1), bytes: new Uint8Array([1, 2]), undefined: { a: undefined },
  date: new Date(1795255200000), large: 2 ** 53, negative: -0.5,
};

dag.task("special", async ({ client }: TaskHandlerArgs) => special[String(await client.getVariable("special"))]);

dag.task("concurrent", async ({ client }: TaskHandlerArgs) => {
  return Promise.all(Array.from({ length: 20 }, (_, index) => client.getVariable(`conformance_${index}`)));
});

dag.task("wait", async ({ ctx }: TaskHandlerArgs) => {
  console.log("waiting");
  await new Promise((_, reject) => {
    const timer = setTimeout(() => reject(new Error("nobody told it to end")), 300_000);
    ctx.signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Error("ended early"));
    });
  });
});

await serveDags(new DagRegistry(dag));
