<?php
// A partner in PHP, as the endpoint's public description shows it.
//
//   php partner.php fetch URL BODY  <  {"id": "...", "secret": "..."}   prints the endpoint's reply
//   php partner.php verify URL      <  a token                          prints "valid" or "not valid"
//
// BODY says how cURL is told that there is none: "custom" or "empty".

[, $job, $url] = $argv;
$input = stream_get_contents(STDIN);

$curl = curl_init($url);
curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
curl_setopt($curl, CURLOPT_TIMEOUT, 20);

if ($job === 'fetch') {
    $client = json_decode($input, true, 2, JSON_THROW_ON_ERROR);
    $credentials = base64_encode(urlencode($client['id']) . ':' . urlencode($client['secret']));
    curl_setopt($curl, CURLOPT_HTTPHEADER, ['Authorization: Basic ' . $credentials]);
    if ($argv[3] === 'custom') {
        curl_setopt($curl, CURLOPT_CUSTOMREQUEST, 'POST');
    } else {
        curl_setopt($curl, CURLOPT_POST, true);
        curl_setopt($curl, CURLOPT_POSTFIELDS, '');
    }
    $reply = curl_exec($curl);
    if ($reply === false) {
        fwrite(STDERR, curl_error($curl));
        exit(3);
    }
    echo curl_getinfo($curl, CURLINFO_HTTP_CODE), ' ', $reply;
    exit;
}

curl_setopt($curl, CURLOPT_POST, true);
curl_setopt($curl, CURLOPT_POSTFIELDS, ['verifytoken' => $input]); // an array: multipart/form-data
$reply = curl_exec($curl);
$response = is_string($reply) ? json_decode($reply, true) : null;
if (is_array($response) && isset($response['result']) && $response['result'] === true) {
    echo 'valid';
} else {
    echo 'not valid';
}
