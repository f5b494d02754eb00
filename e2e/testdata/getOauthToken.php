<?php
// What a verifytoken endpoint in PHP does: it takes the token from the field of the form, and says in JSON whether it is
// good. The file that TOKENS names has a line for each token that is known: the token, a space, and how it is answered.
$answers = [];
foreach (file(getenv('TOKENS'), FILE_IGNORE_NEW_LINES) as $line) {
    [$token, $how] = explode(' ', $line);
    $answers[$token] = $how;
}
if ($_SERVER['REQUEST_METHOD'] !== 'POST' || !isset($_POST['verifytoken']) || !is_string($_POST['verifytoken'])) {
    http_response_code(400);
    exit;
}
header('Content-Type: application/json');
switch ($answers[$_POST['verifytoken']] ?? 'unknown') {
    case 'good':
        echo json_encode(['result' => true, 'message' => 'token valid']);
        break;
    case 'unknown':
        echo json_encode(['result' => false, 'message' => 'token invalid']);
        break;
    case 'string': // what a database returns
        echo json_encode(['result' => '1']);
        break;
    case 'number':
        echo json_encode(['result' => 1]);
        break;
    case 'null':
        echo json_encode(['result' => null]);
        break;
    case 'list':
        echo json_encode([['result' => true]]);
        break;
    case 'warning': // PHP writes it in front of the JSON
        ini_set('display_errors', '1');
        echo $undefined['key'], json_encode(['result' => true]);
        break;
    case 'warning-behind':
        ini_set('display_errors', '1');
        echo json_encode(['result' => true]), $undefined['key'];
        break;
    case 'mark': // of an editor that saves UTF-8 with one
        echo "\u{feff}", json_encode(['result' => true]);
        break;
    case 'fatal':
        missing_function();
        // no break
    case 'exit':
        exit;
    case 'redirect':
        header('Location: /login.php');
        echo json_encode(['result' => true]);
        break;
}
