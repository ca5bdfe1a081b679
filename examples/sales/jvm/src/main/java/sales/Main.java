package sales;

import dev.polypod.sdk.Bundle;
import dev.polypod.sdk.Client;
import dev.polypod.sdk.Context;
import dev.polypod.sdk.FailException;
import dev.polypod.sdk.InputTask;
import dev.polypod.sdk.Server;
import dev.polypod.sdk.TaskInput;
import java.math.BigDecimal;
import java.sql.DriverManager;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The first task of the sales pipeline: reads a region's orders from a database. */
public final class Main {
  private static final Logger log = LoggerFactory.getLogger("sales");

  private Main() {}

  public static void main(String[] args) {
    Server.create(args).serve(new Bundle().register("sales", "extract", Extract.class));
  }

  public static class Region implements TaskInput {
    public String region;
  }

  public static class Extract implements InputTask<Region> {
    public void execute(Context context, Client client, Region input) throws Exception {
      var connection = client.getConnection("sales_db");
      if (connection == null) {
        throw new FailException("connection sales_db is missing");
      }
      var minimum = new BigDecimal(client.getVariable("minimum_amount"));
      log.atInfo().addKeyValue("database", connection.host).log("reading orders of {} from {}", input.region, minimum);
      List<Map<String, Object>> orders = new ArrayList<>();
      try (var database = DriverManager.getConnection(connection.host, connection.login, connection.password);
          var query =
              database.prepareStatement(
                  "SELECT id, customer, amount FROM CSVREAD('classpath:orders.csv') "
                      + "WHERE region = ? AND CAST(amount AS DECIMAL(10, 2)) >= ? ORDER BY id")) {
        query.setString(1, input.region);
        query.setBigDecimal(2, minimum);
        var rows = query.executeQuery();
        while (rows.next()) {
          orders.add(
              Map.of(
                  "id", rows.getLong("id"),
                  "customer", rows.getString("customer"),
                  "amount", rows.getDouble("amount")));
        }
      }
      log.atInfo().addKeyValue("orders", orders.size()).log("extracted");
      client.setXCom(orders);
    }
  }
}
