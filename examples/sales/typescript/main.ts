// The last task of the sales pipeline: names the best customer. Written with Airflow's official TypeScript SDK.
import { Dag, DagRegistry, serveDags, type TaskHandlerArgs } from "apache-airflow-ts-sdk";

async function report({ client }: TaskHandlerArgs) {
  const totals = await client.getXCom<Record<string, number>>({ key: "return_value", taskId: "summarize" });
  const [best] = Object.entries(totals ?? {}).sort(([, a], [, b]) => b - a);
  if (best === undefined) {
    throw new Error("there is nothing to report");
  }
  const [customer, total] = best;
  console.log(`best customer: ${customer} with ${total.toFixed(2)}`);
  return { customer, total };
}

const dag = new Dag("sales");
dag.task("report", report);
await serveDags(new DagRegistry(dag));
